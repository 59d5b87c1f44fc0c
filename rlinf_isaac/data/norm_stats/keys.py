"""Turn a ``norm_stats.json`` with foreign keys into one with OpenPI's: explicitly, recorded, reversibly.

A policy that was trained with such a file was trained in one of two worlds, and the file does not say which:

* ``canonical``: something renamed the keys on the way, so that state and actions were normalised. Then the statistics
  are right and only the names are wrong.
* ``identity``: nothing did. OpenPI's ``Normalize`` skipped the statistics (``strict=False``), so the weights know raw
  states and raw actions. Then normalisation must do nothing, and the statistics become those that do nothing.

Choosing wrongly ruins the policy without an error, so the choice is the user's and is written down.
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
"""Known paths, nested objects joined by "/" as OpenPI's ``flatten_dict`` does, and the key that each stands for."""
METADATA = ("episode_index", "frame_index", "timestamp", "index", "task_index")
"""LeRobot's bookkeeping columns, which no policy normalises."""

CHOICE = (
    "pass --norm-stats-mode canonical if state and actions were normalised in training (the keys were renamed on the "
    "way), or identity if the file was used as it is by OpenPI or RLinf, which then normalised nothing"
)


@dataclass(frozen=True)
class Canonicalised:
    """A file whose keys are OpenPI's, and how it came about.

    Attributes:
        data: bytes of the new ``norm_stats.json``; the source's own where they were right already.
        norm_stats: what they say.
        record: JSON object: mode, source and its sha256, sha256 of `data`, which key became which, which were dropped,
            which fields were replaced by the identity, and the source's text. See `restore`.
    """

    data: bytes
    norm_stats: NormStats
    record: dict[str, Any]


def canonicalise(data: bytes, mode: Mode, source: str = "norm stats") -> Canonicalised:
    """Rename the known keys, drop the metadata keys, and nothing else.

    Args:
        data: bytes of a ``norm_stats.json``.
        mode: see the module docstring. A field whose key was right is never replaced by the identity: it was in force.
        source: names the file in errors and in the record.

    Raises:
        NormStatsError: unknown keys, two spellings of one key that differ, a key that is missing, values that are
            damaged, or mode ``identity`` where no key was wrong.
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
        stats[key] = _only_one({path: entries[path] for path, known in renames.items() if known == key}, key, source)
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
    """The source of a record, byte for byte. NormStatsError when the record was edited."""
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
    """Statistics with which normalising and un-normalising change nothing, by z-score as by quantiles.

    OpenPI adds 1e-6 to std and to q99 - q01, so these are that much less than 1 and 2, written so that the sums are
    exactly 1 and 2 in float64.
    """
    ones = np.ones(dim)
    return FeatureStats(mean=0 * ones, std=(1 - 1e-6) * ones, q01=-ones, q99=((2 - 1e-6) - 1) * ones)


def _only_one(candidates: dict[str, Any], key: str, source: str) -> FeatureStats:
    """The statistics of `key`, which may stand under several paths if they are the same."""
    if not candidates:
        cause = f"{source} has no statistics of {key} under any known key"
        raise NormStatsError.of("norm-stats-missing-key", cause, RECOMPUTE)
    (first, value), *others = candidates.items()
    for path, other in others:
        if other != value:
            raise _conflict(source, key, first, path)
    return parse_feature(value, f"{source}: {first}")


def _by_path(entries: dict[str, Any], source: str) -> dict[str, Any]:
    """Entries by path; an unknown object without mean and std is taken apart: ``{"observation": {"state": ...}}``."""
    paths: dict[str, Any] = {}
    for key, value in entries.items():
        known = key in SPELLINGS or key in METADATA
        nested = not known and isinstance(value, dict) and value and not {"mean", "std"} & value.keys()
        inner = {f"{key}/{name}": entry for name, entry in value.items()} if nested else {key: value}
        for path, entry in inner.items():
            if path in paths and paths[path] != entry:
                raise _conflict(source, SPELLINGS.get(path, path), path, f"{path} (nested)")
            paths[path] = entry
    return paths


def _surplus(entries: dict[str, Any], renames: dict[str, str]) -> list[str]:
    """What else stands beside mean, std, q01 and q99, such as LeRobot's count."""
    return [f"{path}/{name}" for path in renames for name in entries[path] if name not in VECTORS]


def _conflict(source: str, key: str, first: str, second: str) -> NormStatsError:
    cause = f"{source} has different statistics of {key} under {first} and {second}"
    return NormStatsError.of("norm-stats-conflict", cause, "remove the one that was not used in training")
