"""Converts a ``norm_stats.json`` with other keys to one with OpenPI's keys. The conversion is recorded and reversible.

A policy that was trained with such a file was trained in one of two ways, and the file does not show which:

* ``canonical``: the training renamed the keys, so that state and actions were normalised. The statistics are right and
  only the names are wrong.
* ``identity``: the training used the file unchanged. OpenPI's ``Normalize`` skipped the statistics (``strict=False``),
  so the policy was trained on raw states and actions. The statistics are replaced by ones that change nothing.

The wrong choice ruins the policy without an error. Therefore the user has to choose, and the choice is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from rlinf_isaac.data.norm_stats.parse import RECOMPUTE, parse_feature, read_entries
from rlinf_isaac.data.norm_stats.stats import KEYS, VECTORS, FeatureStats, NormStats, digest
from rlinf_isaac.ground.errors import NormStatsError

Mode = Literal["canonical", "identity"]

SPELLINGS = {
    "state": "state",
    "observation.state": "state",
    "observation/state": "state",
    "actions": "actions",
    "action": "actions",
}
"""Known paths -> the key that each stands for. Nested keys are joined by "/", as in OpenPI's ``flatten_dict``."""
METADATA = ("episode_index", "frame_index", "timestamp", "index", "task_index")
"""LeRobot's bookkeeping columns, which no policy normalises."""

CHOICE = (
    "pass --norm-stats-mode canonical if state and actions were normalised in training (the keys were renamed on the "
    "way), or identity if the file was used as it is by OpenPI or RLinf, which then normalised nothing"
)


@dataclass(frozen=True)
class Canonicalised:
    """The result of `canonicalise`.

    Attributes:
        data: bytes of the new ``norm_stats.json``; the source's own bytes if its keys were right already.
        norm_stats: the parsed statistics.
        record: JSON object: mode, source and its sha256, sha256 of `data`, renamed keys, dropped keys, fields replaced
            by the identity, and the source's text. See `restore`.
    """

    data: bytes
    norm_stats: NormStats
    record: dict[str, Any]


def canonicalise(data: bytes, mode: Mode, source: str = "norm stats") -> Canonicalised:
    """Rename the known keys and drop the metadata keys. With mode ``identity``, replace the statistics of renamed keys.

    Args:
        data: bytes of a ``norm_stats.json``.
        mode: see the module docstring. A field whose key was right was used in training, so the identity never replaces
            it.
        source: name of the file in errors and in the record.

    Raises:
        NormStatsError: a key is unknown or missing, two spellings of one key have different statistics, values are
            damaged, or the mode is ``identity`` although all keys are right.
    """
    if mode not in get_args(Mode):
        raise NormStatsError.of("norm-stats-mode", f"the norm stats mode is {mode!r}", CHOICE)
    entries = _by_path(read_entries(data, source), source)
    if unknown := sorted(entries.keys() - SPELLINGS.keys() - set(METADATA)):
        cause = f"{source} has the keys {', '.join(unknown)}, which stand neither for state or actions nor for metadata"
        cure = "remove them from a copy of the file if they are not needed, and try again"
        raise NormStatsError.of("norm-stats-unknown-key", cause, cure)
    renames = {path: key for path, key in SPELLINGS.items() if path in entries}
    stats: dict[str, FeatureStats] = {}
    for key in KEYS:
        stats[key] = _only_one({path: entries[path] for path, name in renames.items() if name == key}, key, source)
    replaced = [key for key in KEYS if key not in entries] if mode == "identity" else []
    if mode == "identity" and not replaced:
        cause = f"{source} has the keys state and actions, so both were normalised with it"
        cure = "use it with --norm-stats-mode canonical; identity is for files whose keys OpenPI skipped"
        raise NormStatsError.of("norm-stats-identity", cause, cure)
    norm_stats = NormStats(**{key: identity(stats[key].dim) if key in replaced else stats[key] for key in KEYS})
    unchanged = entries.keys() == set(KEYS)
    result = data if unchanged else norm_stats.to_json().encode()
    record = {
        "mode": mode,
        "source": source,
        "source_sha256": digest(data),
        "norm_stats_sha256": digest(result),
        "keys": renames,
        "dropped": [*(key for key in METADATA if key in entries), *_surplus(entries, renames)],
        "identity": replaced,
        "original": data.decode(),
    }
    return Canonicalised(result, norm_stats, record)


def restore(record: dict[str, Any]) -> bytes:
    """The original file of a record, byte for byte. Raises NormStatsError if the record was edited."""
    try:
        data = str(record["original"]).encode()
        intact = digest(data) == record["source_sha256"]
    except (KeyError, UnicodeEncodeError):
        intact = False
    if not intact:
        cause = "the record of the canonicalisation does not hold the file that it names"
        raise NormStatsError.of("norm-stats-record", cause, "restore provenance.json as the norm_stats verb wrote it")
    return data


def identity(dim: int) -> FeatureStats:
    """Statistics with which normalisation and its inverse change nothing, both for z-score and for quantiles.

    OpenPI adds 1e-6 to std and to q99 - q01. Here these are smaller than 1 and 2 by that amount, and written so that
    the sums are exactly 1 and 2 in float64.
    """
    ones = np.ones(dim)
    return FeatureStats(mean=0 * ones, std=(1 - 1e-6) * ones, q01=-ones, q99=((2 - 1e-6) - 1) * ones)


def _only_one(candidates: dict[str, Any], key: str, source: str) -> FeatureStats:
    """The statistics of `key`. They may be under several paths if all of them are equal."""
    if not candidates:
        cause = f"{source} has no statistics of {key} under any known key"
        raise NormStatsError.of("norm-stats-missing-key", cause, RECOMPUTE)
    (first, value), *others = candidates.items()
    for path, other in others:
        if other != value:
            raise _conflict(source, key, first, path)
    return parse_feature(value, f"{source}: {first}")


def _by_path(entries: dict[str, Any], source: str) -> dict[str, Any]:
    """Entries by path. An unknown object without mean and std is a nested one: ``{"observation": {"state": ...}}``."""
    paths: dict[str, Any] = {}
    for key, value in entries.items():
        is_known = key in SPELLINGS or key in METADATA
        nested = not is_known and isinstance(value, dict) and value and not {"mean", "std"} & value.keys()
        inner = {f"{key}/{name}": entry for name, entry in value.items()} if nested else {key: value}
        for path, entry in inner.items():
            if path in paths and paths[path] != entry:
                raise _conflict(source, SPELLINGS.get(path, path), path, f"{path} (nested)")
            paths[path] = entry
    return paths


def _surplus(entries: dict[str, Any], renames: dict[str, str]) -> list[str]:
    """Entries besides mean, std, q01 and q99, such as LeRobot's count."""
    return [f"{path}/{name}" for path in renames for name in entries[path] if name not in VECTORS]


def _conflict(source: str, key: str, first: str, second: str) -> NormStatsError:
    cause = f"{source} has different statistics of {key} under {first} and {second}"
    return NormStatsError.of("norm-stats-conflict", cause, "remove the one that was not used in training")
