"""Actions: what is unusable is refused, every dim does something, and ranges and rates fit each other."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rlinf_isaac.envs.conformance.bench import PUSH_STEPS, ROWS, SEED, Bench, Look, refused, reset
from rlinf_isaac.envs.vector import PolicyInput
from rlinf_isaac.ground.errors import Problem

OUTSIDE = 0.01
"""Share of a dataset's frames with an action that the environment does not take, from which on it is an error."""
SLACK = 1e-3
"""So much of its range may an action lie outside: rounding."""
SAME_RATE = 0.02
"""Rates that differ by less than this share are the same."""


def unusable_actions(bench: Bench) -> Look:
    """Actions of another shape, or with NaN, are refused and not played.

    A policy that diverges gives NaN; a simulator that takes it shows nonsense, or hangs.
    """
    dims = bench.task.action.dims
    bad = {
        "an action without the axis of the chunk": np.zeros((ROWS, dims), np.float32),
        "a row too many": np.zeros((ROWS + 1, 1, dims), np.float32),
        "a dim too many": np.zeros((ROWS, 1, dims + 1), np.float32),
        "NaN": np.full((ROWS, 1, dims), np.nan, np.float32),
    }
    reset(bench.env, [SEED, SEED + 1])
    taken = [name for name, actions in bad.items() if not refused(bench.env, actions, ValueError)]
    if not taken:
        return Look(f"{len(bad)} kinds")
    cause = f"the environment does not refuse {', '.join(taken)}"
    return Look(cause, (Problem("env-bad-action", cause, "raise ValueError before the simulator is stepped"),))


def every_dim_acts(bench: Bench) -> Look:
    """Each dim of the action changes what the policy sees.

    A dim without effect is learned and sampled for nothing, and often means that another action space was meant.
    """
    (_, idle), *pushed = bench.pushes
    without = []
    for dim, (_, after) in enumerate(pushed):
        outcomes = [(after, 0), (after, 1), (idle, 0)]
        same = [_equal(*one, *other) for one in outcomes for other in outcomes]
        if all(same):
            without.append(bench.task.action.labels[dim])
    seen = f"each held for {PUSH_STEPS} steps at both ends of its range ({bench.reach[2]})"
    if not without:
        return Look(seen)
    cause = f"no image and no number of the state changes with {', '.join(without)}"
    if len(without) == bench.task.action.dims:
        cure = "pass the actions on to the simulator, in the units that it takes"
        return Look(cause, (Problem("env-dim-ignored", cause, cure),))
    cure = "look at the order and meaning of the dims; leave out one that is not meant to act"
    return Look(cause, (Problem("env-dim-ignored", cause, cure, "warning"),))


def ranges(bench: Bench) -> Look:
    """The environment takes the whole range that the task names, and the actions that the dataset has.

    What lies outside is clipped silently, or does what nobody has seen: demonstrations then teach motions that the
    robot cannot make.
    """
    task, declared, problems = bench.task.action, bench.env.action_range, []
    low, high = np.full(task.dims, -np.inf), np.full(task.dims, np.inf)
    if declared is not None:
        low, high = (np.asarray(bound, np.float64) for bound in declared)
    bounded = bool(np.isfinite([low, high]).all())
    if task.clip is not None:
        narrow = np.flatnonzero((low > task.clip[0] + SLACK) | (high < task.clip[1] - SLACK))
        if narrow.size:
            dim = int(narrow[0])
            cause = (
                f"action.clip is {list(task.clip)}, the environment takes {low[dim]:g} to {high[dim]:g} for "
                f"{task.labels[dim]}"
            )
            problems.append(Problem("env-action-range", cause, "clip to the environment's own range, or scale"))
        low, high = np.maximum(low, task.clip[0]), np.minimum(high, task.clip[1])
    elif bounded:
        cause = f"the environment takes actions from {low.min():g} to {high.max():g}, and the task names no action.clip"
        cure = f"write clip: [{low.max():g}, {high.min():g}] in its section action, so that no policy leaves the range"
        problems.append(Problem("env-no-clip", cause, cure, "warning"))
    known = np.isfinite([low, high]).any()
    seen = f"{_listed(low)} to {_listed(high)}" if known else "the environment names no range"
    if bench.recording is None or not known:
        return Look(seen, tuple(problems))
    actions, slack = bench.recording.actions, SLACK * np.where(np.isfinite(high - low), high - low, 1)
    beyond = (actions < low - slack) | (actions > high + slack)
    share = float(beyond.any(axis=1).mean())
    if share:
        dim = int(beyond.mean(axis=0).argmax())
        cause = (
            f"{share:.1%} of the actions of {bench.recording.name} lie outside the environment's range; "
            f"{task.labels[dim]} goes from {actions[:, dim].min():g} to {actions[:, dim].max():g}"
        )
        cure = "compare units and order of the dims; record with the same controller, or change its range"
        if share >= OUTSIDE:
            problems.append(Problem("env-dataset-actions", cause, cure))
        else:
            problems.append(Problem("env-dataset-actions", cause, cure, "warning"))
    return Look(f"{seen}; {share:.1%} of the dataset's actions outside", tuple(problems))


def rates(bench: Bench) -> Look:
    """The task, the environment and the dataset have the same control rate.

    A policy of another rate moves the robot at another speed than it has learned.
    """
    hz, problems = bench.task.control_hz, []
    cure = "correct control_hz of the task, or the number of physics steps for each action (frame_skip, decimation)"
    if bench.recording is not None and bench.recording.fps != hz:
        cause = f"control_hz of the task is {hz}, {bench.recording.name} has {bench.recording.fps} frames per second"
        problems.append(Problem("env-control-rate", cause, cure))
    said = dict(bench.env.rates)
    wrong = {name: rate for name, rate in said.items() if abs(rate - hz) > SAME_RATE * hz}
    of_videos = [name for name in wrong if "render_fps" in name]
    agreed = len(said) > len(wrong)
    for name, rate in wrong.items():
        cause = f"control_hz of the task is {hz}, the environment's {name} says {rate:g} per second"
        if name not in of_videos:
            # Some environments call the step of their physics dt, and say the control rate elsewhere.
            level: Literal["error", "warning"] = "warning" if agreed and name.split(".")[-1] == "dt" else "error"
            problems.append(Problem("env-control-rate", cause, cure, level))
        elif len(said) == len(of_videos):  # nothing else is said: it may only be the speed of its videos
            problems.append(Problem("env-control-rate", cause, cure, "warning"))
    known = [f"the environment's {name} {rate:g}" for name, rate in said.items()]
    known += [f"the dataset {bench.recording.fps}"] if bench.recording else []
    return Look(f"task {hz}" + "".join(f", {each}" for each in known), tuple(problems))


def _equal(one: PolicyInput, i: int, other: PolicyInput, j: int) -> bool:
    """Whether two rows of what the policy reads are equal."""
    return np.array_equal(one.states[i], other.states[j]) and all(
        np.array_equal(images[i], other.images[slot][j]) for slot, images in one.images.items()
    )


def _listed(bound: np.ndarray) -> str:
    """A bound of all dims: one number where they agree."""
    return f"{bound[0]:g}" if (bound == bound[0]).all() else str(np.round(bound, 3).tolist())
