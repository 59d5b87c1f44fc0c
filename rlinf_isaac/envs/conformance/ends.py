"""How episodes end: by their time, with the observation of their own last step, and not before they have begun."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlinf_isaac.envs.conformance.bench import (
    BOTH,
    ROWS,
    SEED,
    Bench,
    Look,
    chunk,
    differing,
    needs_reset,
    play,
    reset,
    row_of,
)
from rlinf_isaac.ground.errors import Problem

LIMIT = 6
"""Control steps of the episodes that are let run out."""
JUMP = 4.0
"""A last step that moves the state so many times as far as any step before it has left its episode."""
STEPS_BEFORE_A_JUMP = 4
CURE_TERMINAL = "return the observation of the last step, and start no new episode before reset is called"


def time_out(bench: Bench) -> Look:
    """An episode whose time is up ends as a time-out, at that step, keeps the observation of its last step, and wants a
    reset.

    Time-outs are not failures: reinforcement learning goes on from the value of the last observation.
    """
    actions, seeds = bench.actions(LIMIT + 2), [SEED, SEED + 1]
    longer = play(bench.env, seeds, actions[:, :LIMIT])
    if any(longer.outcomes):
        return Look(f"episodes end within {LIMIT} steps otherwise", skipped=True)
    with bench.another(ROWS, LIMIT) as env:
        reset(env, seeds)
        early = chunk(env, actions[:, : LIMIT - 1])
        last = chunk(env, actions[:, LIMIT - 1 :])
        rows = [row_of(last.observation, i) for i in range(ROWS)]
        refuses = needs_reset(env, actions[:, :1])
    if early.time_out.any() or not last.time_out.all() or last.terminated.any() or last.steps.tolist() != [1] * ROWS:
        cause = f"episodes of {LIMIT} steps do not end as time-outs at that step"
        return Look(cause, (Problem("env-time-out", cause, "count the control steps since the reset of each row"),))
    problems = []
    for i in range(ROWS):
        if paths := differing(longer.rows[i][-1], rows[i]):
            cause = f"the observation after a time-out is not that of its last step: {', '.join(paths[:4])}"
            problems.append(Problem("env-terminal-observation", cause, CURE_TERMINAL))
            break
    if not refuses:
        cause = "an episode that is over can be stepped on"
        problems.append(Problem("env-steps-after-end", cause, "raise gymnasium.error.ResetNeeded until it is reset"))
    return Look(f"episodes of {LIMIT} steps", tuple(problems))


def not_solved_at_the_start(bench: Bench) -> Look:
    """No episode is solved by doing nothing.

    A success term that holds from the start, or a scene that starts solved, counts as success whatever a policy does.
    """
    env = bench.env
    dwell = bench.task.env.dwell if bench.task.env else 1
    solved = []
    for seed in range(SEED, SEED + 8, ROWS):
        reset(env, [seed, seed + 1])
        step = chunk(env, bench.idle(dwell), BOTH, images=False)
        solved += [seed + i for i in np.flatnonzero(step.success).tolist()]
    if not solved:
        return Look("8 seeds, doing nothing")
    term = bench.task.env.success if bench.task.env else "success"
    cause = (
        f"{term} holds after {dwell} step{'s' if dwell > 1 else ''} of doing nothing, in {len(solved)} of 8 episodes"
    )
    cure = "name in env.success a term that only a solved task has, or raise env.dwell"
    if len(solved) == 8:
        return Look(cause, (Problem("env-solved-at-start", cause, cure),))
    return Look(cause, (Problem("env-solved-at-start", cause, cure, "warning"),))


def jumps_at_its_end(states: Sequence[np.ndarray]) -> bool:
    """Whether the last of these states (T of (D,)) cannot be where this episode went.

    Every dim counts in units of its own range before that.
    """
    if len(states) < STEPS_BEFORE_A_JUMP + 2:
        return False
    path = np.asarray(states, np.float64)
    span = np.ptp(path[:-1], axis=0)
    moving = span > 1e-9
    steps = np.linalg.norm(np.diff(path[:, moving], axis=0) / span[moving], axis=1)
    return bool(moving.any() and steps[-1] > JUMP * steps[:-1].max())


def leaves_its_episode(ends: Sequence[tuple[Sequence[np.ndarray], str | None]]) -> list[Problem]:
    """A problem if most of these episodes (states, and how it ended) jump with their last step.

    An environment that resets itself gives the first observation of the next episode in place of the last one.
    """
    ended = [states for states, outcome in ends if outcome is not None]
    jumped = sum(map(jumps_at_its_end, ended))
    if not jumped or 2 * jumped < len(ended):
        return []
    cause = f"{jumped} of {len(ended)} episodes end with a state far from the one before: that of the next episode"
    return [Problem("env-terminal-observation", cause, CURE_TERMINAL)]
