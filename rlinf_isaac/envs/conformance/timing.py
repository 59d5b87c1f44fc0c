"""How long a control step and an image take, and an evaluation by that."""

from __future__ import annotations

import time

import numpy as np

from rlinf_isaac.envs.conformance.bench import ROWS, SEED, Bench, Look, chunk, reset

STEPS = 20
SECONDS = 5.0
"""Measuring ends after so long, at the next step."""


def step_and_image(bench: Bench) -> Look:
    """What a control step and an image take on this machine, in one process.

    The prediction is the simulator's part of an evaluation in which every episode needs its whole time: a step for each
    action, and images for each chunk.
    """
    step_s, drawn_s = _step_seconds(bench, images=False), _step_seconds(bench, images=True)
    cameras = len(bench.task.cameras)
    image_s = max(drawn_s - step_s, 0) / cameras if cameras else 0.0
    limit = bench.env.identity.max_episode_steps
    chunked = bench.episodes * limit * (step_s + cameras * image_s / bench.action_chunk)
    bench.facts |= {"step_ms": 1000 * step_s, "image_ms": 1000 * image_s, "evaluation_s": chunked}
    seen = (
        f"{1000 * step_s:.2g} ms a step, {1000 * image_s:.2g} ms an image; {bench.episodes} episodes of {limit} steps"
    )
    return Look(f"{seen}: {_duration(chunked)} at most")


def _step_seconds(bench: Bench, *, images: bool) -> float:
    """Seconds for a control step of one row."""
    env, actions, taken, steps, seed = bench.env, bench.actions(STEPS), 0.0, 0, SEED
    active = np.zeros(ROWS, bool)
    for t in range(STEPS):
        if not active.any():
            reset(env, [seed, seed + 1])
            active[:] = True
            seed += ROWS
        begin = time.perf_counter()
        step = chunk(env, actions[:, t : t + 1], active, images=images)
        taken += time.perf_counter() - begin
        steps += int(step.steps.sum())
        active &= np.array([step.outcome(i) is None for i in range(ROWS)])
        if taken > SECONDS:
            break
    return taken / steps


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
