"""Checks a ``norm_stats.json`` against the policy and against rows of the dataset to which it is said to belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.data.delta_actions import parse_delta_mask
from rlinf_isaac.data.lerobot.format import ACTION, STATE
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats.anomalies import NEAR_CONSTANT, near_constant, round_trips, strangeness
from rlinf_isaac.data.norm_stats.compute import Settings, compute_norm_stats
from rlinf_isaac.data.norm_stats.differences import differing_keys, sample_rows
from rlinf_isaac.data.norm_stats.keys import identity
from rlinf_isaac.data.norm_stats.normaliser import Normalizer, NormMode
from rlinf_isaac.data.norm_stats.parse import RECOMPUTE, from_json, read_bytes
from rlinf_isaac.data.norm_stats.stats import KEYS, VECTORS, FeatureStats, NormStats, digest
from rlinf_isaac.ground.errors import NormStatsError, Problem

FEATURE_OF_KEY = {"state": STATE, "actions": ACTION}

RECOMPUTED_ROWS = 500_000
"""Statistics of up to this many rows are recomputed, which takes less than a second."""


@dataclass(frozen=True)
class Dim:
    """One row of the report.

    Attributes:
        key: ``state`` or ``actions``.
        name: name of the dim in the policy or the dataset, or its number.
        mean, std, q01, q99: from the file.
        normalised_mean, normalised_std: of the dataset's rows after the policy's normalisation; None without a dataset.
        remark: anomalies, in a few words.
    """

    key: str
    name: str
    mean: float
    std: float
    q01: float | None
    q99: float | None
    normalised_mean: float | None = None
    normalised_std: float | None = None
    remark: str = ""


@dataclass
class NormStatsReport:
    """The result of `check_norm_stats_file`.

    Attributes:
        path: path of the file.
        digest: sha256 of its bytes; None if it cannot be read.
        dims: one row per dim, state first; empty if the file cannot be read as norm stats.
        problems: errors and warnings.
        recomputed: comparison with statistics recomputed from the dataset: ``equal`` (the same bytes), ``close``
            (within the error of OpenPI's estimator), ``different``, or None if they were not recomputed.
    """

    path: Path
    digest: str | None = None
    dims: list[Dim] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    recomputed: str | None = None

    @property
    def errors(self) -> list[Problem]:
        """Problems that forbid using the file."""
        return [problem for problem in self.problems if problem.level == "error"]


def check_norm_stats_file(
    path: str | Path,
    dataset: LeRobotDataset | None = None,
    *,
    mode: NormMode,
    names: Mapping[str, Sequence[str]] | None = None,
    features: Mapping[str, str] = FEATURE_OF_KEY,
    settings: Settings | None = None,
) -> NormStatsReport:
    """Check a ``norm_stats.json``. Problems with it are reported, not raised.

    Identity statistics, which `canonicalise` may give, fit no rows on purpose; their remarks say ``identity``.

    Args:
        path: the file.
        dataset: a dataset whose rows are normalised; its dims are the first dims of the file, which may have more.
        mode: ``quantile`` (pi0.5) needs q01 and q99; see `norm_mode`.
        names: the names of the policy's dims, by ``state`` and ``actions``; the file must have at least as many dims.
        features: the dataset's features, by ``state`` and ``actions``.
        settings: how the statistics of `dataset` are computed. Without them actions are absolute, and the statistics
            are not recomputed.

    Raises:
        DatasetError: `dataset` cannot be read.
    """
    report = NormStatsReport(Path(path))
    try:
        data = read_bytes(path)
        report.digest = digest(data)
        stats = from_json(data, str(path))
    except NormStatsError as error:
        report.problems += error.problems
        return report
    report.problems += _check_dims(stats, path, _dims_of(dataset, names, features)) + _check_quantiles(
        stats, path, mode
    )
    stats = _used(stats, _dims_of(dataset, names, features))
    rows: dict[str, np.ndarray] = {}
    if dataset is not None and not report.errors:
        rows = sample_rows(dataset, settings)
    for key in KEYS:
        _check_feature(report, key, getattr(stats, key), _labels(key, dataset, names, features), mode, rows.get(key))
    if dataset is not None and settings is not None and not report.errors:
        _compare(report, stats, dataset, settings, rows)
    return report


def check_policy(
    stats: NormStats, source: str | Path, *, mode: NormMode, names: Mapping[str, Sequence[str]]
) -> list[Problem]:
    """The problems that keep a policy from using `stats`. No dataset is needed; see `check_norm_stats_file`."""
    return _check_dims(stats, source, _dims_of(None, names)) + _check_quantiles(stats, source, mode)


def _check_dims(stats: NormStats, path: str | Path, wanted: Mapping[str, Mapping[str, int]]) -> list[Problem]:
    """Too few dims are an error. Too many are a warning: only the first ones are used, as in OpenPI."""
    problems = []
    for key in KEYS:
        stats_dims = getattr(stats, key).dim
        for owner, dims in wanted[key].items():
            cause = f"{path}: the norm stats of '{key}' have {stats_dims} dims, {owner} has {dims}"
            if stats_dims < dims:
                cure = "use the norm stats of the policy's own training data"
                problems.append(Problem("norm-stats-dim", cause, cure))
            elif stats_dims > dims:
                cure = "nothing to do if they were made for a model's full width; OpenPI takes the first ones as well"
                problems.append(Problem("norm-stats-longer", f"{cause}: the first {dims} count", cure, level="warning"))
    return problems


def _dims_of(
    dataset: LeRobotDataset | None,
    names: Mapping[str, Sequence[str]] | None,
    features: Mapping[str, str] = FEATURE_OF_KEY,
) -> dict[str, dict[str, int]]:
    """For ``state`` and ``actions``, the number of dims in the policy and in the dataset, as far as they are given."""
    dims: dict[str, dict[str, int]] = {key: {"the policy": len(names[key])} if names else {} for key in KEYS}
    for key in KEYS:
        if dataset is not None and (feature := dataset.features.get(features[key])):
            dims[key][f"the dataset {dataset.root}"] = feature.shape[0]
    return dims


def _used(stats: NormStats, wanted: Mapping[str, Mapping[str, int]]) -> NormStats:
    """The first dims of `stats`, as many as the policy or the dataset has."""
    cut = {key: getattr(stats, key) for key in KEYS}
    for key, feature in cut.items():
        dims = min(wanted[key].values(), default=feature.dim)
        if dims < feature.dim:
            first: dict[str, Any] = {
                name: None if (vector := getattr(feature, name)) is None else vector[:dims] for name in VECTORS
            }
            cut[key] = FeatureStats(**first)
    return NormStats(**cut)


def _check_quantiles(stats: NormStats, path: str | Path, mode: NormMode) -> list[Problem]:
    lacking = [key for key in KEYS if getattr(stats, key).q01 is None or getattr(stats, key).q99 is None]
    if mode != "quantile" or not lacking:
        return []
    cause = f"{path}: {' and '.join(lacking)} have no q01 and q99, which quantile normalisation (pi0.5) needs"
    return [Problem("norm-stats-no-quantiles", cause, RECOMPUTE)]


def _labels(
    key: str,
    dataset: LeRobotDataset | None,
    names: Mapping[str, Sequence[str]] | None,
    features: Mapping[str, str],
) -> list[str]:
    if names:
        return list(names[key])
    feature = dataset.features.get(features[key]) if dataset is not None else None
    return list(feature.names or ()) if feature else []


def _check_feature(
    report: NormStatsReport,
    key: str,
    stats: FeatureStats,
    labels: list[str],
    mode: NormMode,
    rows: np.ndarray | None,
) -> None:
    """Append the dims of one feature to the report, and problems with their values."""
    lacks_quantiles = mode == "quantile" and (stats.q01 is None or stats.q99 is None)
    normaliser = None if lacks_quantiles else Normalizer.of(key, stats, mode)
    is_identity = stats.as_dict() == identity(stats.dim).as_dict()
    normalised = None if normaliser is None or rows is None else normaliser.normalize(rows).astype(np.float64)
    foreign: list[str] = []
    for entry in range(stats.dim):
        name = labels[entry] if len(labels) == stats.dim else str(entry)
        remarks = ["identity"] if is_identity else []
        scale = np.inf if normaliser is None else float(normaliser.scale[entry])
        if scale < NEAR_CONSTANT:
            reach = None if normalised is None else float(np.abs(normalised[:, entry]).max())
            report.problems.append(near_constant(report.path, f"{key} {name}", scale, mode, reach))
            remarks.append("near-constant")
        if rows is not None and normalised is not None and not is_identity:
            strange = strangeness(stats, entry, rows[:, entry].astype(np.float64), normalised[:, entry], mode, scale)
            if strange:
                remarks.append(strange)
                foreign.append(f"{name} ({strange})")
        report.dims.append(
            Dim(
                key,
                name,
                float(stats.mean[entry]),
                float(stats.std[entry]),
                None if stats.q01 is None else float(stats.q01[entry]),
                None if stats.q99 is None else float(stats.q99[entry]),
                None if normalised is None else float(normalised[:, entry].mean()),
                None if normalised is None else float(normalised[:, entry].std()),
                ", ".join(remarks),
            )
        )
    if foreign:
        cause = f"{report.path}: rows of the dataset do not look normalised with it: {key} {', '.join(foreign)}"
        cure = "these are the statistics of other data, or of other action settings; " + RECOMPUTE
        report.problems.append(Problem("norm-stats-range", cause, cure))
    if normaliser is not None and rows is not None and not round_trips(normaliser, rows):
        cause = f"{report.path}: normalising {key} and undoing it does not give the rows of the dataset again"
        report.problems.append(Problem("norm-stats-round-trip", cause, RECOMPUTE))


def _compare(
    report: NormStatsReport,
    stats: NormStats,
    dataset: LeRobotDataset,
    settings: Settings,
    rows: Mapping[str, np.ndarray],
) -> None:
    """Recompute the statistics if that is fast, and report how they compare with the file."""
    delta = any(parse_delta_mask(settings["delta_actions"]))
    if dataset.num_frames * (settings["action_horizon"] if delta else 1) > RECOMPUTED_ROWS:
        return
    try:
        expected = compute_norm_stats(dataset, **settings)
    except NormStatsError as error:
        report.problems += error.problems
        return
    if expected.digest == report.digest:
        report.recomputed = "equal"
        return
    different = differing_keys(stats, expected, rows)
    report.recomputed = "different" if different else "close"
    if different:
        cause = f"{report.path}: {' and '.join(different)} are not what the dataset gives with {dict(settings)}"
        cure = "computed with another horizon, batch size or delta_actions, from other data, or edited; " + RECOMPUTE
        report.problems.append(Problem("norm-stats-differ", cause, cure, level="warning"))
