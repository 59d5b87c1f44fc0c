"""What the jobs of several tasks have in common: which dataset is of which task, their norm stats, what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of, names_of
from rlinf_isaac.ground.errors import InvalidJob, Problem

if TYPE_CHECKING:
    from rlinf_isaac.data.mixture import Mixture


def matched(config: JobConfig, roots: Sequence[Path]) -> tuple[Path, ...]:
    """The datasets in the order of the tasks of a suite. Where each dataset records which task it was made for, as
    `demos` does, that decides; otherwise they are in this order already.

    Raises:
        InvalidJob: there is not one dataset for each task.
        DatasetError: a ``meta/`` is damaged.
    """
    from rlinf_isaac.data.lerobot.meta import read_meta

    names = names_of(config)
    recorded = [str(((read_meta(root).provenance or {}).get("env") or {}).get("task")) for root in roots]
    if len(roots) != len(names):
        cause = f"--dataset names {len(roots)} datasets, the suite has {len(names)} tasks: {', '.join(names)}"
        raise InvalidJob.of("suite-datasets", cause, "name one dataset for each task, in the same order")
    if sorted(recorded) == sorted(names):
        return tuple(roots[recorded.index(name)] for name in names)
    wrong = [
        f"{root} was recorded for {task}, not for {name}"
        for root, task, name in zip(roots, recorded, names, strict=True)
        if task in names and task != name
    ]
    if wrong:
        cure = f"name the datasets in the order of the tasks: {', '.join(names)}"
        raise InvalidJob.of("suite-datasets", "; ".join(wrong), cure)
    return tuple(roots)


def check_suite(config: JobConfig, *, norm_stats: str, engine: str) -> Iterator[Problem]:
    """What a training of several tasks does not have."""
    if norm_stats != "auto":
        cause = f"--norm-stats is {norm_stats}, but those of several tasks are computed from their datasets"
        yield Problem("suite-norm-stats", cause, "leave --norm-stats out")
    if engine != "local":
        cause = f"--engine {engine} trains on one task, {config.env.task} are {len(names_of(config))}"
        yield Problem("suite-engine", cause, "leave --engine out, or name one task")
    if config.sft.eval_interval:
        cause = f"sft.eval_interval is {config.sft.eval_interval}, but a training of several tasks does not play"
        yield Problem("suite-played", cause, "leave it out, and evaluate the checkpoints with eval")


def norm_stats_of(config: JobConfig, dataset: Mixture) -> dict[str, bytes]:
    """Asset id -> ``norm_stats.json`` of a suite: of the mixture, or of each task's own dataset."""
    from rlinf_isaac.data.norm_stats import compute_norm_stats, settings_of

    configs = configs_of(config)
    if config.suite["statistics"] == "shared":
        stats = compute_norm_stats(dataset, **settings_of(configs[0]))
        return {configs[0].policy.asset_id: stats.to_json().encode()}
    return {
        own.policy.asset_id: compute_norm_stats(part, **settings_of(own)).to_json().encode()
        for own, part in zip(configs, dataset.datasets, strict=True)
    }
