"""How many times as fast reinforcement learning is here as with RLinf's actor, from the rows of one run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from measure import TINY

ENVS, CALLS, EPOCHS = (2 if TINY else 64), 45, 3
"""An iteration: episodes of 450 steps in chunks of 10, played side by side; passes of the update over all chunks."""
WHOLE = "whole iteration"
LEAST, CALLED = "model alone", "as its worker calls it"

Row = tuple[str, float, str, str]


def ratios(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows "RLinf / ours" for every pair of parts that was measured.

    RLinf's iteration is computed from its calls: 45 of 64 rows, and 3 x 2880 samples at the best batch. Ours is
    computed from its calls, too, and measured as a whole with everything that its engine does beside them.
    """
    found = {row[0]: row[1] for row in rows if row[1] == row[1]}
    for preset in ("pi0", "pi05"):
        ours = found.get(f"{preset} RL ours rollout {ENVS}"), found.get(f"{preset} RL ours, {WHOLE}, update per sample")
        whole = found.get(f"{preset} RL ours, {WHOLE}")
        for how in (LEAST, CALLED):
            rollout, sample = found.get(f"{preset} RL rlinf rollout {ENVS}, {how}"), _sample(found, preset, how)
            note = f"RLinf's {how}"
            if rollout and ours[0]:
                yield f"{preset} RL, rollout call of {ENVS}, RLinf / ours", rollout / ours[0], "x", note
            if sample and ours[1]:
                yield f"{preset} RL, update per sample, RLinf / ours", sample / ours[1], "x", note
            if not (rollout and sample):
                continue
            theirs = _iteration(rollout, sample)
            yield f"{preset} RL rlinf, an iteration, computed", theirs, "s", note
            if ours[0] and ours[1]:
                computed = _iteration(ours[0], ours[1])
                yield f"{preset} RL, an iteration, RLinf / ours", theirs / computed, "x", f"{note}, both computed"
            if whole:
                yield f"{preset} RL, an iteration, RLinf / ours", theirs / whole, "x", f"{note}, ours as a whole"


def _sample(found: dict[str, float], preset: str, how: str) -> float | None:
    """Milliseconds per sample of RLinf's update, at the best of its batches."""
    pattern = re.compile(rf"{preset} RL rlinf update (\d+), {how}")
    each = [value / int(match[1]) for name, value in found.items() if (match := pattern.fullmatch(name))]
    return min(each, default=None)


def _iteration(rollout: float, sample: float) -> float:
    """Seconds, from the milliseconds of a rollout call and of an update's sample."""
    return (CALLS * rollout + EPOCHS * CALLS * ENVS * sample) / 1e3
