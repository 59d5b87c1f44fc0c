"""Reads a ``norm_stats.json`` strictly: keys that OpenPI would silently skip are refused.

OpenPI's ``Normalize`` skips statistics whose key is not in the data (``strict=False``). With a file that has LeRobot's
keys, state and actions silently stay as they are. The policy trains on them, and later gets other numbers if it is
loaded with a file that has the right keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.data.norm_stats.stats import KEYS, VECTORS, FeatureStats, NormStats
from rlinf_isaac.ground import reading
from rlinf_isaac.ground.errors import NormStatsError, Problem

MAX_BYTES = 4_000_000
"""Largest ``norm_stats.json`` that is read. A thousand dims take 80 kB."""
RECOMPUTE = "compute the file again: rlinf-isaac norm_stats --dataset DATASET"
CANONICALISE = (
    "rename the keys explicitly: rlinf-isaac norm_stats --canonicalise FILE --norm-stats-mode canonical|identity, "
    "or compute the file again with the norm_stats verb"
)


def load(path: str | Path) -> NormStats:
    """Read a ``norm_stats.json``. Raises NormStatsError, whose message names the file and the wrong keys."""
    return from_json(read_bytes(path), source=str(path))


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a ``norm_stats.json``. Raises NormStatsError if the file cannot be read."""
    try:
        return reading.read_bytes(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise NormStatsError.of("norm-stats-missing", f"{path} cannot be read ({why})", RECOMPUTE) from error


def from_json(data: bytes | str, source: str = "norm stats") -> NormStats:
    """Parse the bytes of a ``norm_stats.json``; `source` names them in errors.

    Raises:
        NormStatsError: with every problem of the file.
    """
    stats = read_entries(data, source)
    if surplus := sorted(stats.keys() - set(KEYS)):
        cause = (
            f"{source} has the keys {', '.join(surplus)}, which OpenPI's transforms never look up: their data would "
            "silently not be normalised; the keys must be 'state' and 'actions' and nothing else"
        )
        raise NormStatsError.of("norm-stats-keys", cause, CANONICALISE)
    if missing := [key for key in KEYS if key not in stats]:
        raise NormStatsError.of("norm-stats-missing-key", f"{source} lacks the key {', '.join(missing)}", RECOMPUTE)
    return parse_entries(stats, source)


def read_entries(data: bytes | str, source: str) -> dict[str, Any]:
    """The content of the file's ``norm_stats`` object, unchecked.

    Raises:
        NormStatsError: the bytes are not JSON, or not of OpenPI's schema.
    """
    try:
        content = reading.parse_json(data, finite=False)  # `_vector` reports NaN and infinity with a better message
    except ValueError as error:
        cause = f"{source} is not JSON ({error}); the file is damaged"
        raise NormStatsError.of("norm-stats-not-json", cause, f"restore it, or {RECOMPUTE}") from error
    stats = content.get("norm_stats") if isinstance(content, dict) else None
    if isinstance(stats, dict):
        return stats
    if isinstance(content, dict) and any(_is_lerobot_feature(value) for value in content.values()):
        cause = f"{source} is LeRobot's stats.json: its statistics are of frames, not of action chunks, with other keys"
        raise NormStatsError.of("norm-stats-lerobot-stats", cause, RECOMPUTE)
    cause = f"{source} has no 'norm_stats' object: it is not in OpenPI's format"
    raise NormStatsError.of("norm-stats-format", cause, RECOMPUTE)


def parse_entries(stats: dict[str, Any], source: str) -> NormStats:
    """The statistics of ``stats["state"]`` and ``stats["actions"]``.

    Raises:
        NormStatsError: with every problem of both.
    """
    features: dict[str, FeatureStats] = {}
    problems: list[Problem] = []
    for key in KEYS:
        try:
            features[key] = parse_feature(stats[key], f"{source}: {key}")
        except NormStatsError as error:
            problems += error.problems
    if problems:
        raise NormStatsError(problems)
    return NormStats(**features)


def parse_feature(values: Any, source: str) -> FeatureStats:
    """One feature's vectors. Entries with other names are ignored, as by OpenPI. Raises NormStatsError."""
    if not isinstance(values, dict) or not {"mean", "std"} <= values.keys():
        cause = f"{source} must be an object with mean, std, q01, q99"
        raise NormStatsError.of("norm-stats-format", cause, RECOMPUTE)
    vectors = {name: _vector(values.get(name), f"{source}.{name}") for name in VECTORS}
    mean, std, q01, q99 = vectors.values()
    if mean is None or std is None:
        raise NormStatsError.of("norm-stats-format", f"{source}: mean and std must not be null", RECOMPUTE)
    lengths = {name: len(vector) for name, vector in vectors.items() if vector is not None}
    if len(set(lengths.values())) != 1:
        cause = f"{source}: mean, std, q01 and q99 differ in length: {lengths}"
        raise NormStatsError.of("norm-stats-lengths", cause, RECOMPUTE)
    if (std < 0).any():
        cause = f"{source}.std: entry {int(np.argmax(std < 0))} is negative std {std.min():g}"
        raise NormStatsError.of("norm-stats-negative-std", cause, RECOMPUTE)
    if q01 is not None and q99 is not None and (q99 < q01).any():
        entry = int(np.argmax(q99 < q01))
        cause = f"{source}: q99 < q01 at entry {entry} ({q99[entry]:g} < {q01[entry]:g})"
        raise NormStatsError.of("norm-stats-quantile-order", cause, RECOMPUTE)
    return FeatureStats(mean=mean, std=std, q01=q01, q99=q99)


def _vector(values: Any, source: str) -> np.ndarray | None:
    if values is None:
        return None
    try:
        vector = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise NormStatsError.of("norm-stats-format", f"{source} is not a list of numbers", RECOMPUTE) from error
    if vector.ndim != 1 or not vector.size:
        raise NormStatsError.of("norm-stats-format", f"{source} is not a non-empty list of numbers", RECOMPUTE)
    if not np.isfinite(vector).all():
        entry = int(np.argmax(~np.isfinite(vector)))
        cause = f"{source}: entry {entry} is {vector[entry]}, not a finite number"
        raise NormStatsError.of("norm-stats-not-finite", cause, RECOMPUTE)
    return vector


def _is_lerobot_feature(value: Any) -> bool:
    return isinstance(value, dict) and {"mean", "std"} < value.keys() and bool({"min", "max", "count"} & value.keys())
