"""Rows and chunks: what is done to one row touches no other, and a chunk is its single steps."""

from __future__ import annotations

import numpy as np

from rlinf_isaac.envs.conformance.bench import (
    ROWS,
    SEED,
    Bench,
    Look,
    chunk,
    differing,
    play,
    reset,
    row_of,
)
from rlinf_isaac.ground.errors import Problem

STEPS = 6


def reset_of_one_row(bench: Bench) -> Look:
    """A reset of one row leaves the other episode alone: what is seen of it at once, and how it goes on.

    Evaluations start the next seed in a row as soon as its episode is over, while the others play on.
    """
    env, actions = bench.env, bench.actions(STEPS)
    whole = play(env, [SEED, SEED + 1], actions)
    if any(whole.outcomes):
        return Look("episodes end too early to be interrupted", skipped=True)
    reset(env, [SEED, SEED + 1])
    before = row_of(chunk(env, actions[:, : STEPS // 2]).observation, 1)
    interrupted = row_of(reset(env, [SEED + 9, None], np.array([True, False])), 1)
    cure = "reset only the rows that are asked for, and nothing that they share"
    if paths := differing(before, interrupted):
        cause = f"a reset of row 0 changes what is seen of row 1: {', '.join(paths[:4])}"
        return Look(cause, (Problem("env-reset-touches", cause, cure),))
    if env.elapsed.tolist() != [0, STEPS // 2] or list(env.seeds) != [SEED + 9, SEED + 1]:
        cause = f"after a reset of row 0 the rows have played {env.elapsed.tolist()} steps of seeds {list(env.seeds)}"
        return Look(cause, (Problem("env-reset-touches", cause, cure),))
    if paths := differing(whole.rows[1][-1], row_of(chunk(env, actions[:, STEPS // 2 :]).observation, 1)):
        cause = f"after a reset of row 0 the episode of row 1 goes on differently: {', '.join(paths[:4])}"
        return Look(cause, (Problem("env-reset-touches", cause, cure),))
    return Look("row 0 in the middle of the episode of row 1")


def inactive_rows(bench: Bench) -> Look:
    """A row that is not active stays as it is.

    Its episode is over or waits; its terminal observation is still read.
    """
    env = bench.env
    before = row_of(reset(env, [SEED, SEED + 1]), 0)
    step = chunk(env, bench.actions(4), np.array([False, True]))
    after = row_of(step.observation, 0)
    if (paths := differing(before, after)) or step.steps[0] or env.elapsed[0]:
        cause = f"a row that is not active changes while the other is stepped: {', '.join(paths[:4]) or 'its steps'}"
        return Look(cause, (Problem("env-inactive-moves", cause, "step the active rows alone"),))
    return Look("row 0 while row 1 was stepped")


def chunk_is_its_steps(bench: Bench) -> Look:
    """A chunk of actions has the same result as its single steps.

    A policy gives chunks, videos and demonstrations go step by step; both have to be the same episode.
    """
    seeds, actions = [SEED, SEED + 1], bench.actions(STEPS)
    single = play(bench.env, seeds, actions)
    whole = play(bench.env, seeds, actions, whole=True)
    for i in range(ROWS):
        paths = differing(single.rows[i][-1], whole.rows[i][-1])
        if paths or single.rewards[i] != whole.rewards[i] or single.outcomes[i] != whole.outcomes[i]:
            cause = f"a chunk of {STEPS} actions ends otherwise than the single steps: {', '.join(paths) or 'rewards'}"
            cure = "do the same in every control step, whether an image is drawn after it or not"
            return Look(cause, (Problem("env-chunk", cause, cure),))
    return Look(f"{STEPS} steps")


def without_images(bench: Bench) -> Look:
    """Steps without images are the same episode as steps with them.

    Drawing may move a simulator on, or wake it; evaluations draw once for each chunk.
    """
    seeds, actions, rest = [SEED, SEED + 1], bench.actions(STEPS), STEPS - 1
    drawn = play(bench.env, seeds, actions)
    if any(drawn.outcomes):
        return Look(f"episodes end within {STEPS} steps", skipped=True)
    reset(bench.env, seeds)
    for t in range(rest):
        chunk(bench.env, actions[:, t : t + 1], images=False)
    last = chunk(bench.env, actions[:, rest:]).observation
    for i in range(ROWS):
        if paths := differing(drawn.rows[i][-1], row_of(last, i)):
            cause = f"without images in between an episode goes on differently: {', '.join(paths[:4])}"
            return Look(cause, (Problem("env-chunk", cause, "let drawing an image change nothing but the image"),))
    return Look(f"{STEPS} steps, drawn and not")
