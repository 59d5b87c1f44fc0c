"""A LeRobot dataset against what the policy and the task of a job expect."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import STACK_CUBES, stack_cube, task_of
from rlinf_isaac.envs.stack_cube.contract import STATE_LAYOUTS
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.preflight.findings import Findings
from rlinf_isaac.preflight.norm_stats import check_given_norm_stats
from rlinf_isaac.tasks.task import Action, Vector

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot.meta import DatasetMeta

_TAGGED = "its runs are tagged with it, and an evaluation asks again"
_ALLOW = f"or pass --allow-mismatch to sft or norm_stats: {_TAGGED}"
_OWN_TASK = "describe your task with --task; `rlinf-isaac task init --dataset {root}` begins its file"
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
        "actions": _check_actions(root, meta, config),
        "rate": _check_rate(root, meta, config),
        "prompts": _check_prompts(root, meta, config),
    }
    found = [problem for part in PARTS if part in parts for problem in checks[part]]
    return [replace(each, level="warning") if allow and each.code in ALLOWABLE else each for each in found]


def allowed(problems: Iterable[Problem]) -> list[Problem]:
    """The differences among `problems` that a job has on purpose."""
    return [each for each in problems if each.code in ALLOWABLE and each.level == "warning"]


def _check_cameras(root: Path, meta: DatasetMeta, config: JobConfig) -> Iterator[Problem]:
    cameras = [camera.dataset for camera in task_of(config).cameras.values()]
    yield from (_missing(root, meta, name, config) for name in cameras if name not in meta.features)
    size = config.env.image_size
    # What another task's environment will draw is known only when it runs; `doctor env` compares it with the data.
    sized = [] if config.task else [name for name in cameras if name in meta.features]
    for name in (name for name in sized if meta.features[name].shape[:2] != (size, size)):
        height, width = meta.features[name].shape[:2]
        cause = f"{root}: images of {name} have {width} x {height} pixels, the environment will render {size} x {size}"
        cure = "others than squares are padded with black, which no evaluation here shows"
        cure = f"set env.image_size={width} to evaluate with such images" if width == height else cure
        yield Problem("other-image-size", cause, cure, level="warning")
    for name in (name for name in cameras if name in meta.features and not meta.features[name].is_visual):
        cause = f"{root}: feature '{name}' is {meta.features[name].dtype}, the task takes it for a camera"
        yield Problem("feature-kind", cause, f"name a camera: {_listed(meta, visual=True)}")
    unseen = sorted(name for name, each in meta.features.items() if each.is_visual and name not in cameras)
    if unseen:
        cause = f"{root} has {' and '.join(unseen)}, which the policy does not see"
        yield Problem("unused-camera", cause, f"nothing to do if {' and '.join(cameras)} are the ones meant", "warning")


def _check_state(root: Path, meta: DatasetMeta, config: JobConfig) -> Iterator[Problem]:
    task, layout = task_of(config), config.policy.state_layout
    if config.task:
        cure = "describe the state in the task as the dataset has it (state: dataset, dims, names)"
        yield from _check_vector(root, meta, task.state, config, cure, cure)
        return
    own = _names(meta, task.state.dataset)
    fitting = next((each for each in STATE_LAYOUTS if own == stack_cube(task.name, each).state.names), "")
    cure = f"set policy.state_layout={fitting}" if fitting else "train on a dataset whose state is this, in this order"
    dims = f"set env.task and policy.state_layout (now {task.name}, {layout}) as recorded"
    yield from _check_vector(root, meta, task.state, config, cure, dims)


def _check_actions(root: Path, meta: DatasetMeta, config: JobConfig) -> Iterator[Problem]:
    cure = "train on a dataset whose actions are these, in this order: the environment takes no others"
    if config.task:
        cure = "describe the action in the task as the dataset has it (action: dataset, dims, names)"
    yield from _check_vector(root, meta, task_of(config).action, config, cure, cure)


def _check_vector(
    root: Path, meta: DatasetMeta, vector: Vector, config: JobConfig, cure: str, dims_cure: str
) -> Iterator[Problem]:
    """The dims of one feature: their number, and their names where both the dataset and the task name each of them."""
    name, feature = vector.dataset, meta.features.get(vector.dataset)
    if feature is None:
        yield _missing(root, meta, name, config)
        return
    own = feature.dim_names
    if feature.shape != (vector.dims,):
        cause = f"{root}: feature '{name}' has shape {list(feature.shape)}, expected [{vector.dims}]"
        yield Problem("feature-dim", cause, dims_cure)
    elif vector.names is None:
        return
    elif own is None:
        labels = f"only {', '.join(feature.names)}" if feature.names else "nothing"
        cause = (
            f"{root}: {labels} says what the {vector.dims} dims of '{name}' are; they are taken for"
            f" {', '.join(vector.names)}, in this order, which the checkpoints record as an assumption"
        )
        cure = f"name each dim in meta/info.json (features, {name}, names) to have them compared"
        yield Problem("unnamed-dims", cause, cure, level="warning")
    elif own != vector.names:
        order = ": the same names in another order" if sorted(own) == sorted(vector.names) else ""
        cause = f"{root}: '{name}' is {', '.join(own)}, expected {', '.join(vector.names)}{order}"
        yield Problem("action-names" if isinstance(vector, Action) else "state-layout", cause, cure)


def _check_rate(root: Path, meta: DatasetMeta, config: JobConfig) -> Iterator[Problem]:
    rate = task_of(config).control_hz
    if meta.fps != rate:
        cause = (
            f"{root} was recorded at {meta.fps} Hz, the task is controlled at {rate} Hz: a policy at another rate"
            " moves at another speed"
        )
        yield Problem("fps", cause, f"resample the dataset, {_ALLOW}")


def _check_prompts(root: Path, meta: DatasetMeta, config: JobConfig) -> Iterator[Problem]:
    task = task_of(config)
    for prompt in meta.tasks.values():
        if task.prompts is not None and prompt not in task.prompts:
            fitting = next((name for name in STACK_CUBES if stack_cube(name).prompts == (prompt,)), None)
            given = " or ".join(map(repr, task.prompts))
            cause = f"{root} has the prompt {prompt!r}, the task {task.name} gives {given}"
            yield Problem("prompt", cause, f"set env.task={fitting}, {_ALLOW}" if fitting else f"{_ALLOW_FIRST}")


def _missing(root: Path, meta: DatasetMeta, name: str, config: JobConfig) -> Problem:
    cause = f"{root} has no feature '{name}'; it has {', '.join(sorted(meta.features))}"
    cure = "name the dataset's own features in the task" if config.task else _OWN_TASK.format(root=root)
    return Problem("no-feature", cause, cure)


def _listed(meta: DatasetMeta, *, visual: bool) -> str:
    return ", ".join(sorted(name for name, each in meta.features.items() if each.is_visual == visual))


def _names(meta: DatasetMeta, name: str) -> tuple[str, ...] | None:
    feature = meta.features.get(name)
    return None if feature is None else feature.dim_names


def suitable_job(root: Path) -> tuple[str, str, list[Problem]]:
    """The task and state layout that a dataset suits best, and what is still wrong with it for those.

    Raises:
        DatasetError: ``meta/`` itself is damaged.
    """
    config = load_config("tiny")
    fits = []
    for task in STACK_CUBES:
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
