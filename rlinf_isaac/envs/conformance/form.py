"""What an observation is made of, and whether its images show anything that moves."""

from __future__ import annotations

from typing import cast

import numpy as np
from gymnasium import spaces

from rlinf_isaac.envs.conformance.bench import ROWS, SEED, Bench, Look, chunk, reset
from rlinf_isaac.envs.vector import PolicyInput
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.tasks.paths import leaves

BLANK = 2.0
"""Images whose pixels deviate less than this from their mean (of 255) show nothing."""
CHANGED = 10
"""A pixel has changed if a channel differs by more than this, of 255."""
HAND_MOVES = 0.15
"""A camera on the hand changes at least so much of its image when the robot moves."""
STARTS = 8
"""Starts of episodes that are looked at."""


def observations(bench: Bench) -> Look:
    """Keys, shapes and dtypes stay those of the observation space, after a reset, a step and a chunk.

    A policy is compiled for them, and a dataset has one form for all of its frames.
    """
    env, problems = bench.env, []
    after_reset = reset(env, [SEED, SEED + 1])
    after_step = chunk(env, bench.actions(1)).observation
    reset(env, [SEED + 2, SEED + 3])
    after_chunk = chunk(env, bench.actions(3)).observation
    for when, observation in (("a reset", after_reset), ("a step", after_step), ("a chunk", after_chunk)):
        found, space = leaves(observation), leaves(cast(spaces.Dict, env.observation_space))
        wrong = [
            f"{path} is {np.asarray(value).dtype} {np.shape(value)}"
            for path, value in found.items()
            if path in space and (np.shape(value), np.asarray(value).dtype) != (space[path].shape, space[path].dtype)
        ]
        wrong += [f"{path} is missing" for path in space if path not in found]
        wrong += [f"{path} is not announced" for path in found if path not in space]
        if wrong:
            cause = f"after {when} the observation is not of its space: {'; '.join(wrong[:4])}"
            problems.append(Problem("env-observation", cause, "give the same keys, shapes and dtypes every time"))
            break
        if other_form := _not_as_read(bench, bench.seen(observation)):
            cure = "correct the paths in the task's description, or the environment"
            problems.append(Problem("env-observation", f"after {when} {other_form}", cure))
            break
    seen = bench.seen(after_chunk)
    sizes = [f"{slot} {images.shape[1]}x{images.shape[2]}" for slot, images in seen.images.items()]
    return Look(", ".join([*sizes, f"{seen.states.shape[1]} numbers"]), tuple(problems))


def finite(bench: Bench) -> Look:
    """No number that the policy reads is NaN or infinite.

    One NaN in a state makes every action of the batch NaN, and one in a dataset the norm stats.
    """
    env, states = bench.env, []
    for seed in range(SEED, SEED + 4, ROWS):
        states.append(bench.states(reset(env, [seed, seed + 1])))
        states.append(bench.states(chunk(env, bench.actions(10, seed), images=False).observation))
    unusable = np.flatnonzero(~np.isfinite(states).all(axis=(0, 1)))
    if unusable.size:
        names = ", ".join(bench.task.state.labels[dim] for dim in unusable[:6])
        cause = f"the state has values that are NaN or infinite: {names}"
        return Look(cause, (Problem("env-not-finite", cause, "give a number in every step, or leave the entry out"),))
    return Look(f"{len(states) * ROWS} states")


def images_show_something(bench: Bench) -> Look:
    """Every camera's image has contrast at the start of an episode.

    A renderer that is not ready, or has no light, gives images of one colour; a policy learns to ignore them.
    """
    deviation = dict.fromkeys(bench.task.cameras, 0.0)
    for seed in range(SEED, SEED + STARTS, ROWS):
        for slot, images in bench.seen(reset(bench.env, [seed, seed + 1])).images.items():
            by_channel = images.reshape(ROWS, -1, images.shape[-1]).std(axis=1)
            deviation[slot] = max(deviation[slot], float(by_channel.max()))
    if not deviation:
        return Look("the task has no camera", skipped=True)
    problems = [
        Problem(
            "env-camera-blank",
            f"{slot} ({bench.task.cameras[slot].env}) is of one colour in {STARTS} starts of episodes",
            "look at it: is the renderer ready, is there light, does the camera look at the robot?",
        )
        for slot, value in deviation.items()
        if value < BLANK
    ]
    return Look("deviation " + ", ".join(f"{slot} {value:.0f}" for slot, value in deviation.items()), tuple(problems))


def cameras_move(bench: Bench) -> Look:
    """An image changes when the robot moves, and that of a camera on a hand in a large part.

    A simulator may draw what was, or from where a camera was: IsaacLab 3.0 did not move the wrist camera with the hand.
    """
    if not bench.task.cameras:
        return Look("the task has no camera", skipped=True)
    moved = max(float(np.abs(after.states - before.states).max()) for before, after in bench.pushes)
    if not moved:
        return Look("the state does not change, whatever the action", skipped=True)
    problems, seen = [], []
    for slot, camera in bench.task.cameras.items():
        pairs = [(before.images[slot].astype(int), after.images[slot].astype(int)) for before, after in bench.pushes]
        any_pixel = any((before != after).any() for before, after in pairs)
        changed = max(
            float((np.abs(after[i] - before[i]).max(axis=-1) > CHANGED).mean())
            for before, after in pairs
            for i in range(ROWS)
        )
        seen.append(f"{slot} {changed:.0%}")
        if not any_pixel:
            cause = f"{slot} ({camera.env}) shows the same image after the robot has moved"
            problems.append(Problem("env-camera-stale", cause, "draw it anew after every step, from where it is then"))
        elif "wrist" in slot and changed < HAND_MOVES:
            cause = f"{slot} ({camera.env}) changes in {changed:.1%} of its pixels at most when the robot moves"
            cure = "move it with the hand; if it does not sit on one, give it another slot"
            problems.append(Problem("env-camera-still", cause, cure, "warning"))
    return Look("pixels that change: " + ", ".join(seen), tuple(problems))


def _not_as_read(bench: Bench, seen: PolicyInput) -> str | None:
    """What of the policy's input has another form than every policy reads; None if nothing has."""
    for slot, images in seen.images.items():
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            return f"{slot} is {images.dtype} {images.shape[1:]}, not height x width x 3 uint8"
    if seen.states.shape != (ROWS, bench.task.state.dims):
        return f"the state has {seen.states.shape[-1]} numbers, state.dims is {bench.task.state.dims}"
    return None
