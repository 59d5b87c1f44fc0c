"""A LeRobot dataset against what the policy and the task of a job expect."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.envs.stack_cube.contract import ACTION_NAMES, CONTROL_HZ, STATE_LAYOUTS, TASKS, state_names
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.preflight.findings import Findings
from rlinf_isaac.preflight.norm_stats import check_given_norm_stats

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot.meta import DatasetMeta

_TAGGED = "its runs are tagged with it, and an evaluation asks again"
_ALLOW = f"or pass --allow-mismatch to sft or norm_stats: {_TAGGED}"
_ALLOW_FIRST = f"pass --allow-mismatch to sft or norm_stats to train on it as it is: {_TAGGED}"


PARTS = ("cameras", "state", "actions", "rate", "prompts")
"""What `check_dataset` compares."""
ALLOWABLE = ("fps", "prompt")
"""Codes of differences that a job may have on purpose, with ``--allow-mismatch``: its data is of another robot cell or
another wording, and whoever evaluates the policy is asked again."""


def check_dataset(
    config: JobConfig, root: Path, parts: Collection[str] = PARTS, *, allow: bool = False
) -> list[Problem]:
    """A LeRobot dataset against what the policy and the task expect; reads ``meta/`` only.

    Dims are compared by name where the dataset names each of them, otherwise by number alone, and a warning says what
    is assumed of them.

    Args:
        config: of the job.
        root: of the dataset.
        parts: what the job reads of it (`PARTS`).
        allow: take what is `ALLOWABLE` for warnings.

    Raises:
        DatasetError: ``meta/`` itself is damaged.
    """
    # pyarrow takes a moment; --help should not wait for it
    from rlinf_isaac.data.lerobot.meta import read_meta

    meta = read_meta(root)
    checks = {
        "cameras": _check_cameras(root, meta, config),
        "state": _check_state(root, meta, config),
        "actions": _check_actions(root, meta),
        "rate": _check_rate(root, meta),
        "prompts": _check_prompts(root, meta, config),
    }
    found = [problem for part in PARTS if part in parts for problem in checks[part]]
    return [replace(each, level="warning") if allow and each.code in ALLOWABLE else each for each in found]


def allowed(problems: Iterable[Problem]) -> list[Problem]:
    """The differences among `problems` that a job has on purpose."""
    return [each for each in problems if each.code in ALLOWABLE and each.level == "warning"]


def _check_cameras(root: Path, meta: DatasetMeta, config: JobConfig) -> Iterator[Problem]:
    from rlinf_isaac.data.lerobot.format import FRONT_IMAGE, WRIST_IMAGE

    cameras = (FRONT_IMAGE, WRIST_IMAGE)
    yield from (_missing(root, meta, name) for name in cameras if name not in meta.features)
    size = config.env.image_size
    for name in (name for name in cameras if name in meta.features and meta.features[name].shape[:2] != (size, size)):
        height, width = meta.features[name].shape[:2]
        cause = f"{root}: images of {name} have {width} x {height} pixels, the environment will render {size} x {size}"
        cure = "others than squares are padded with black, which no evaluation here shows"
        cure = f"set env.image_size={width} to evaluate with such images" if width == height else cure
        yield Problem("other-image-size", cause, cure, level="warning")
    unseen = sorted(name for name, each in meta.features.items() if each.is_visual and name not in cameras)
    if unseen:
        cause = f"{root} has {' and '.join(unseen)}, which the policy does not see"
        yield Problem("unused-camera", cause, f"nothing to do if {' and '.join(cameras)} are the ones meant", "warning")


def _check_state(root: Path, meta: DatasetMeta, config: JobConfig) -> Iterator[Problem]:
    from rlinf_isaac.data.lerobot.format import STATE

    task, layout = TASKS[config.env.task], config.policy.state_layout
    names = state_names(layout, task.num_cubes)
    fitting = next(
        (f"{each}" for each in STATE_LAYOUTS if _names(meta, STATE) == state_names(each, task.num_cubes)), ""
    )
    cure = f"set policy.state_layout={fitting}" if fitting else "train on a dataset whose state is this, in this order"
    dims = f"set env.task and policy.state_layout (now {task.name}, {layout}) as recorded"
    yield from _check_vector(root, meta, STATE, names, cure, dims)


def _check_actions(root: Path, meta: DatasetMeta) -> Iterator[Problem]:
    from rlinf_isaac.data.lerobot.format import ACTION

    cure = "train on a dataset whose actions are these, in this order: the environment takes no others"
    yield from _check_vector(root, meta, ACTION, list(ACTION_NAMES), cure, cure)


def _check_vector(
    root: Path, meta: DatasetMeta, name: str, expected: list[str], cure: str, dims_cure: str
) -> Iterator[Problem]:
    """The dims of one feature: their number, and their names where each has one."""
    from rlinf_isaac.data.lerobot.format import STATE

    feature = meta.features.get(name)
    if feature is None:
        yield _missing(root, meta, name)
        return
    own = feature.dim_names
    if feature.shape != (len(expected),):
        cause = f"{root}: feature '{name}' has shape {list(feature.shape)}, expected [{len(expected)}]"
        yield Problem("feature-dim", cause, dims_cure)
    elif own is None:
        labels = f"only {', '.join(feature.names)}" if feature.names else "nothing"
        cause = (
            f"{root}: {labels} says what the {len(expected)} dims of '{name}' are; they are taken for"
            f" {', '.join(expected)}, in this order, which the checkpoints record as an assumption"
        )
        cure = f"name each dim in meta/info.json (features, {name}, names) to have them compared"
        yield Problem("unnamed-dims", cause, cure, level="warning")
    elif list(own) != expected:
        order = ": the same names in another order" if sorted(own) == sorted(expected) else ""
        cause = f"{root}: '{name}' is {', '.join(own)}, expected {', '.join(expected)}{order}"
        yield Problem("state-layout" if name == STATE else "action-names", cause, cure)


def _check_rate(root: Path, meta: DatasetMeta) -> Iterator[Problem]:
    if meta.fps != CONTROL_HZ:
        cause = (
            f"{root} was recorded at {meta.fps} Hz, the task is controlled at {CONTROL_HZ} Hz: a policy at another rate"
            " moves at another speed"
        )
        yield Problem("fps", cause, f"resample the dataset, {_ALLOW}")


def _check_prompts(root: Path, meta: DatasetMeta, config: JobConfig) -> Iterator[Problem]:
    task = TASKS[config.env.task]
    for prompt in meta.tasks.values():
        if prompt != task.prompt:
            fitting = next((each.name for each in TASKS.values() if each.prompt == prompt), None)
            cause = f"{root} has the prompt {prompt!r}, the task {task.name} gives {task.prompt!r}"
            yield Problem("prompt", cause, f"set env.task={fitting}, {_ALLOW}" if fitting else f"{_ALLOW_FIRST}")


def _missing(root: Path, meta: DatasetMeta, name: str) -> Problem:
    cause = f"{root} has no feature '{name}'; it has {', '.join(sorted(meta.features))}"
    return Problem("no-feature", cause, "convert the dataset to the names that RLinf's IsaacLab data config uses")


def _names(meta: DatasetMeta, name: str) -> list[str] | None:
    feature = meta.features.get(name)
    return None if feature is None or feature.dim_names is None else list(feature.dim_names)


def suitable_job(root: Path) -> tuple[str, str, list[Problem]]:
    """The task and state layout that a dataset suits best, and what is still wrong with it for those.

    Raises:
        DatasetError: ``meta/`` itself is damaged.
    """
    config = load_config("tiny")
    fits = []
    for task in TASKS:
        for layout in STATE_LAYOUTS:
            candidate = replace(
                config, env=replace(config.env, task=task), policy=replace(config.policy, state_layout=layout)
            )
            fits.append((task, layout, check_dataset(candidate, root)))
    return min(fits, key=lambda fit: (sum(each.level == "error" for each in fit[2]), len(fit[2])))


def check_held_out(config: JobConfig, roots: Sequence[Path]) -> list[Problem]:
    """Whether enough episodes of the datasets are left to train on.

    Raises:
        DatasetError: a ``meta/`` itself is damaged.
    """
    # pyarrow takes a moment; --help should not wait for it
    from rlinf_isaac.data.lerobot.meta import read_meta
    from rlinf_isaac.data.subset import held_out_episodes

    held_out = config.sft.val_episodes
    if not held_out:
        return []
    counts = [len(read_meta(root).episodes) for root in roots]
    episodes = sum(counts)
    if held_out < episodes:
        apart = held_out_episodes(episodes, held_out, config.sft.seed)
        ends = list(accumulate(counts))
        for root, first, end in zip(roots, [0, *ends], ends, strict=False):
            if config.sft.mix and sum(first <= each < end for each in apart) == end - first:
                cause = f"sft.val_episodes {held_out} leaves none of the {end - first} episodes of {root}"
                cure = "hold out fewer of them, choose another sft.seed, or leave that dataset out"
                return [Problem("val-mixture", f"{cause}, which sft.mix has a weight for", cure)]
        return []
    where = " and ".join(map(str, roots))
    cause = f"sft.val_episodes {held_out} leaves none of the {episodes} episodes of {where} to train on"
    return [Problem("val-episodes", cause, f"hold out {max(0, episodes // 10)} of them, or record more")]


def check_training_data(
    config: JobConfig, root: Path, norm_stats: Path | None, *, quick: bool, allow: bool = False
) -> list[Problem]:
    """Everything about a dataset, and the norm stats that are said to be its own, that can fail a training.

    Args:
        config: of the job.
        root: of the dataset.
        norm_stats: a ``norm_stats.json``; None when it will be computed.
        quick: do not read much more than ``meta/`` of a large dataset.
        allow: take another prompt or rate for warnings (`ALLOWABLE`).
    """
    # pyarrow takes a moment; --help should not wait for it
    from rlinf_isaac.data.validate.dataset import validate_dataset

    findings = Findings(validate_dataset(root))
    with findings.collect():
        findings.add(check_dataset(config, root, allow=allow))
    if norm_stats is not None:
        with findings.collect():
            findings.add(check_given_norm_stats(norm_stats, root, config, quick=quick))
    return findings.problems
