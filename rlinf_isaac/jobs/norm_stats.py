"""Checks the options of the job that computes or checks norm stats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from rlinf_isaac.config import load_config
from rlinf_isaac.config.reads import check_overrides
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import single
from rlinf_isaac.ground.errors import InvalidJob, NormStatsError, Problem
from rlinf_isaac.ground.probe import check_output
from rlinf_isaac.jobs import options

if TYPE_CHECKING:
    from rlinf_isaac.data.norm_stats.check import NormStatsReport
    from rlinf_isaac.data.norm_stats.keys import Mode
    from rlinf_isaac.preflight import Findings

READS = ("state", "actions", "rate")
"""The parts of a dataset on which its statistics depend. Its cameras and prompts are not among them."""


class Checked(NamedTuple):
    """Options that were checked.

    Attributes:
        config: their config.
        dataset: root of the dataset, if one is named.
        allowed: differences between dataset and task that ``--allow-mismatch`` allows.
    """

    config: JobConfig
    dataset: Path | None
    allowed: Sequence[Problem] = ()


def check(
    findings: Findings,
    *,
    dataset: str,
    repo_id: str,
    check: str,
    preset: str,
    allow_mismatch: bool,
    output: Path,
    overrides: str,
    task: str = options.AUTO,
) -> Checked:
    """Check the options for computing the norm stats of a dataset or, with `check`, for checking a file of norm stats.

    Raises:
        InvalidJob: a value is wrong; `findings` has the problems that were found before.
    """
    from rlinf_isaac.preflight import check_config, check_dataset
    from rlinf_isaac.preflight.dataset import allowed

    form = "norm_stats"
    if check != options.NONE:
        form = "norm_stats --check" if dataset == options.NONE else "norm_stats --check --dataset"
    changes = options.to_overrides({"task": task}, {"task": "env.task"}, overrides)
    findings.add(check_overrides(form, changes))
    config = single(load_config(preset, changes))
    findings.add(check_config(config, form, changes))
    findings.raise_errors()
    root = None if dataset == options.NONE else options.find_dataset(dataset, repo_id)
    if check != options.NONE:
        return Checked(config, root)
    if root is None:
        cure = "pass --dataset to compute norm stats, or --check FILE, or --canonicalise FILE"
        raise InvalidJob.of("no-dataset", "there is no --dataset", cure)
    findings.add(check_output(output))
    findings.add(check_dataset(config, root, READS, allow=allow_mismatch))
    return Checked(config, root, allowed(findings.problems))


def check_canonicalise(findings: Findings, *, output: Path, overrides: str) -> None:
    """Check the options for giving a file OpenPI's keys."""
    findings.add(check_overrides("norm_stats --canonicalise", options.to_overrides({}, {}, overrides)))
    findings.add(check_output(output))


def mode_of(text: str) -> Mode:
    """The mode that `text` names, in which a file gets OpenPI's keys.

    Raises:
        NormStatsError: there is no such mode.
    """
    from rlinf_isaac.data.norm_stats.keys import CHOICE, Mode

    if text in get_args(Mode):
        return text  # type: ignore[return-value]
    raise NormStatsError.of("norm-stats-mode", "--canonicalise needs --norm-stats-mode canonical or identity", CHOICE)


def check_file(config: JobConfig, path: Path, dataset_root: Path | None) -> NormStatsReport:
    """A report on a ``norm_stats.json`` for the policy of `config`. If there is a dataset, it shows real rows."""
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.data.norm_stats import settings_of
    from rlinf_isaac.data.norm_stats.check import check_norm_stats_file
    from rlinf_isaac.preflight.norm_stats import policy_of

    return check_norm_stats_file(
        path,
        None if dataset_root is None else LeRobotDataset(dataset_root),
        **policy_of(config),
        settings=None if dataset_root is None else settings_of(config),
    )
