"""Several datasets that one training draws from: whether they fit each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.ground.errors import Problem

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot.meta import DatasetMeta


def check_mixture(config: JobConfig, roots: Sequence[Path], norm_stats: Path | None) -> list[Problem]:
    """Datasets against the first of them, and the weights against their number; reads ``meta/`` only.

    Args:
        config: of the job.
        roots: of the datasets, one or more.
        norm_stats: a file that is given, or None where they are computed.

    Raises:
        DatasetError: a ``meta/`` is damaged.
    """
    from rlinf_isaac.data.lerobot.meta import read_meta

    problems = list(_check_weights(config.sft.mix, len(roots)))
    if len(roots) == 1:
        return problems
    if norm_stats is not None:
        cause = f"--norm-stats is {norm_stats}, but the norm stats of several datasets are those of their mixture"
        problems.append(Problem("mix-norm-stats", cause, "leave --norm-stats out: they are computed"))
    if twice := sorted({str(root) for root in roots if [each.resolve() for each in roots].count(root.resolve()) > 1}):
        cause = f"{' and '.join(twice)} is given more than once"
        problems.append(Problem("mix-twice", cause, "give it once, and a larger share by sft.mix"))
    metas = [read_meta(root) for root in roots]
    if config.suite:  # each dataset is read by its own task
        return problems or list(_check_shares(config.sft.mix, roots, metas))
    task = task_of(config)
    vectors = task.state.dataset, task.action.dataset
    for root, meta in zip(roots[1:], metas[1:], strict=True):
        problems += _check_pair(roots[0], metas[0], root, meta, vectors)
    return problems or list(_check_shares(config.sft.mix, roots, metas))


def _check_shares(weights: Sequence[float], roots: Sequence[Path], metas: Sequence[DatasetMeta]) -> Iterator[Problem]:
    from rlinf_isaac.data.mixture import apportion

    frames = sum(episode.length for meta in metas for episode in meta.episodes)
    for root, count in zip(roots, apportion(frames, weights) if weights else (), strict=False):
        if not count:
            cause = f"of {root} no frame would be drawn: its share of {frames} frames is less than one"
            yield Problem("mix-count", cause, "give it a larger weight in sft.mix, or leave the dataset out")


def _check_weights(weights: Sequence[float], datasets: int) -> Iterator[Problem]:
    if weights and (len(weights) != datasets or datasets == 1):
        cure = f"give {datasets}, one for each, or leave it out" if datasets > 1 else "leave it out"
        cause = f"sft.mix has {len(weights)} weights, --dataset names {datasets} dataset{'s' * (datasets > 1)}"
        yield Problem("mix-count", cause, cure)
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        yield Problem("bad-value", f"sft.mix is {list(weights)}", "set every weight to a number greater than 0")


def _check_pair(
    first_root: Path, first: DatasetMeta, root: Path, meta: DatasetMeta, features: Sequence[str]
) -> Iterator[Problem]:
    if meta.fps != first.fps:
        cause = f"{root} was recorded at {meta.fps} Hz, {first_root} at {first.fps} Hz"
        yield Problem("mix-fps", cause, "resample one of them, or train on each by itself")
    cameras, others = ({n: f.shape for n, f in each.features.items() if f.is_visual} for each in (first, meta))
    if cameras != others:
        cause = f"{root} has the cameras {_shown(others)}, {first_root} has {_shown(cameras)}"
        yield Problem("mix-cameras", cause, "mix datasets of the same cameras and image sizes")
    for name in features:
        ours, theirs = first.features.get(name), meta.features.get(name)
        if ours is None or theirs is None:
            continue  # a problem of that dataset alone
        if (ours.shape, ours.dim_names, ours.dtype) != (theirs.shape, theirs.dim_names, theirs.dtype):
            (one, two) = (
                f"{each.dtype} {list(each.shape)} ({', '.join(each.dim_names or ['no names'])})"
                for each in (theirs, ours)
            )
            cause = f"{root}: '{name}' is {one}, that of {first_root} is {two}"
            yield Problem("mix-dims", cause, "mix datasets with the same dims, in the same order")


def _shown(cameras: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in sorted(cameras.items())) or "none"
