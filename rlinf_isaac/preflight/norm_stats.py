"""Norm stats against the policy that is to use them, and against the dataset they are said to be of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.reading import read_json

PROVENANCE_FILE = "provenance.json"
_MAX_BYTES = 4_000_000
HASHED_AT_ONCE = 1 << 30
"""Bytes of a dataset that a quick check hashes; above, it relies on an earlier hash."""

_CURE = "compute them with: rlinf-isaac norm_stats --dataset DATASET, or leave --norm-stats at auto"


def check_norm_stats(data: bytes, source: Path, config: JobConfig) -> list[Problem]:
    """Keys, sizes and quantiles of a ``norm_stats.json``, without a dataset to compare it with.

    Args:
        data: its bytes.
        source: file or bundle that holds them, for the messages.
        config: of the job that normalises with it.
    """
    # pyarrow, which comes with it, takes a moment; --help should not wait for it
    from rlinf_isaac.data.norm_stats import from_json
    from rlinf_isaac.data.norm_stats.check import check_policy

    try:
        stats = from_json(data, str(source))
    except InvalidJob as error:
        return list(error.problems)
    policy = policy_of(config)
    return check_policy(stats, source, mode=policy["mode"], names=policy["names"])


def check_given_norm_stats(path: Path, root: Path, config: JobConfig, *, quick: bool) -> list[Problem]:
    """Whether a ``norm_stats.json`` is that of a dataset: by its own record, and on real rows.

    Args:
        path: the file; ``provenance.json`` beside it, which the verb norm_stats writes, says what it is of. Without
            one, values that agree with those of the dataset vouch for it (to the precision of OpenPI's estimator).
        root: of the dataset.
        config: its settings of the norm stats.
        quick: do not hash a large dataset that was not hashed before; a warning then says what was not compared.

    Raises:
        DatasetError: a file of the dataset cannot be read.
    """
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.data.norm_stats import settings_of
    from rlinf_isaac.data.norm_stats.check import check_norm_stats_file

    settings = settings_of(config)
    report = check_norm_stats_file(path, LeRobotDataset(root), **policy_of(config), settings=settings)
    if report.digest is None or report.errors:
        return report.problems
    provenance = read_provenance(path.parent)
    if "dataset" in provenance:
        return [*report.problems, *_check_origin(path, provenance, report.digest, settings, root, quick=quick)]
    if report.recomputed in ("equal", "close"):
        return report.problems
    cause = f"{path} has no {PROVENANCE_FILE} beside it, and is not what {root} gives: nothing says what it belongs to"
    return [Problem("norm-stats-provenance", cause, _CURE)]


def read_provenance(directory: Path) -> dict[str, Any]:
    """What ``provenance.json`` beside a ``norm_stats.json`` says; nothing where there is none that can be read."""
    try:
        values = read_json(directory / PROVENANCE_FILE, _MAX_BYTES)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def policy_of(config: JobConfig) -> dict[str, Any]:
    """What norm stats must suit: ``mode``, ``names`` and ``features`` of `check_norm_stats_file`."""
    from rlinf_isaac.data.norm_stats.normaliser import norm_mode  # pyarrow comes with it

    task = task_of(config)
    return {
        "mode": norm_mode(config.policy.norm, config.model.pi05),
        "names": {"state": list(task.state.labels), "actions": list(task.action.labels)},
        "features": {"state": task.state.dataset, "actions": task.action.dataset},
    }


def _check_origin(
    path: Path, provenance: Mapping[str, Any], digest: str, settings: Mapping[str, Any], root: Path, *, quick: bool
) -> list[Problem]:
    """What ``provenance.json`` says against the file's own digest, the job's settings and the dataset's digest."""
    from rlinf_isaac.data.lerobot.dataset_digest import cached_dataset_digest, dataset_digest

    problems = []
    if provenance.get("norm_stats") != digest:
        cause = f"{path} has the sha256 {digest}, its {PROVENANCE_FILE} says {provenance.get('norm_stats')}"
        problems.append(Problem("norm-stats-edited", cause, _CURE))
    # A setting that is not recorded of one of the two is recorded only where it is not the usual one.
    for key in {**settings, **{key: None for key in ("features", "adapt") if key in provenance}}:
        value = settings.get(key)
        if provenance.get(key) != value:
            cause = f"{path} was computed with {key}={provenance.get(key)}, the job has {value}"
            problems.append(Problem("norm-stats-mismatch", cause, _CURE))
    now = cached_dataset_digest(root)
    if now is None and quick and _size(root) > HASHED_AT_ONCE:
        cause = f"{root} was never hashed, so it is not known whether {path} belongs to it"
        cure = "the job itself hashes it; or compute the norm stats, which does so, too"
        return [*problems, Problem("not-hashed", cause, cure, level="warning")]
    now = now or dataset_digest(root)
    if provenance["dataset"] != now:
        cause = f"{path} is of the dataset {provenance['dataset']} (its {PROVENANCE_FILE}), {root} is the dataset {now}"
        problems.append(Problem("norm-stats-mismatch", cause, _CURE))
    return problems


def _size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
