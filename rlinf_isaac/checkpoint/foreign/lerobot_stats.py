"""lerobot's statistics as OpenPI's ``norm_stats.json``. No torch.

A trained policy of lerobot has them in the safetensors file of its preprocessor's normaliser, by feature and vector:
``observation.state.mean``, ``action.q01``. They are of single frames, as lerobot normalises; the float32 numbers are
taken as they are. lerobot adds 1e-8 to a standard deviation where OpenPI adds 1e-6, and nothing to a range of quantiles
that is not zero, which only a dim that hardly moves would show.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.checkpoint.foreign.said.entries import read_object
from rlinf_isaac.checkpoint.foreign.said.lerobot import POSTPROCESSOR, PREPROCESSOR, steps_of
from rlinf_isaac.checkpoint.foreign.said.statements import Statements
from rlinf_isaac.checkpoint.header import read_layout
from rlinf_isaac.ground.errors import NormStatsError
from rlinf_isaac.ground.reading import read_bytes

FEATURES = {"observation.state": "state", "action": "actions"}
VECTORS = ("mean", "std", "q01", "q99")
_STEPS = {PREPROCESSOR: "normalizer_processor", POSTPROCESSOR: "unnormalizer_processor"}
_DTYPES = {"F32": "<f4", "F64": "<f8"}
_MAX_DIMS = 10_000
_MAX_BYTES = 100_000_000
_COPY = "copy the policy's directory again, complete"


@dataclass(frozen=True)
class LerobotStats:
    """Statistics of a policy of lerobot.

    Attributes:
        path: the file they are in.
        data: bytes of the ``norm_stats.json`` they make; equal files give equal bytes.
        record: JSON-ready, what was done.
    """

    path: Path
    data: bytes
    record: dict[str, Any]


def find_lerobot_stats(root: Path) -> LerobotStats | None:
    """The statistics that the policy at `root` normalises with; None where it has none, as a base that was not tuned.

    Raises:
        BundleError: a processor's JSON or safetensors file is damaged.
        NormStatsError: the file that it names is missing, has no such statistics, or the postprocessor has others.
    """
    before = _state_file(root, PREPROCESSOR)
    if before is None:
        return None
    file, eps = before
    vectors = _vectors(file)
    stats = {
        key: {name: vectors[f"{feature}.{name}"].tolist() for name in VECTORS if f"{feature}.{name}" in vectors}
        for feature, key in FEATURES.items()
    }
    if lacking := [feature for feature, key in FEATURES.items() if not {"mean", "std"} <= stats[key].keys()]:
        cause = f"{file} has no mean and std of {' and '.join(lacking)}"
        raise NormStatsError.of("norm-stats-missing-key", cause, "name a norm_stats.json: --norm-stats FILE")
    after = _state_file(root, POSTPROCESSOR)
    if after is not None:
        other = _vectors(after[0])
        actions = [name for name in other if name.startswith("action.")]
        if differing := [name for name in actions if _differ(vectors.get(name), other[name])]:
            cause = f"{file} and {after[0]} differ in {', '.join(differing)}: actions are scaled back by other numbers"
            raise NormStatsError.of("ambiguous-norm-stats", cause, "say which hold: --norm-stats FILE")
    record = {
        "format": "lerobot",
        "keys": {feature: key for feature, key in FEATURES.items()},
        "dropped": sorted({name.rpartition(".")[0] for name in vectors} - FEATURES.keys()),
        "eps": eps,
        "eps_here": 1e-6,
    }
    return LerobotStats(file, json.dumps({"norm_stats": stats}, indent=2, allow_nan=False).encode(), record)


def _state_file(root: Path, name: str) -> tuple[Path, float | None] | None:
    """The safetensors file of the step that normalises, and its epsilon; None where there is none."""
    values = read_object(root / name)
    if values is None:
        return None
    found = Statements()
    for entries in steps_of(values, name, found):
        if entries.word("registry_name") == _STEPS[name] and (state := entries.word("state_file")) is not None:
            # Beside its JSON: a path would let it name any file of the machine.
            if Path(state).name != state or not state.endswith(".safetensors"):
                cause = f"{root / name} names {ascii(state[:80])[1:-1]}, which is not a safetensors file beside it"
                raise NormStatsError.of("no-norm-stats", cause, _COPY)
            if not (root / state).is_file():
                raise NormStatsError.of("no-norm-stats", f"{root / state} is missing, which {name} names", _COPY)
            eps = (entries.inner("config") or {}).get("eps")
            return root / state, eps if isinstance(eps, float) else None
    if found.problems:
        raise NormStatsError(found.problems)
    return None


def _vectors(file: Path) -> dict[str, np.ndarray]:
    """Every vector of floats in a file; images' statistics, which have more axes, and counts are left out."""
    layout = read_layout(file)
    data = read_bytes(file, _MAX_BYTES) if file.stat().st_size <= _MAX_BYTES else b""
    found = {}
    for name, info in layout.tensors.items():
        if info.dtype in _DTYPES and len(info.shape) == 1 and 0 < info.shape[0] < _MAX_DIMS and data:
            begin, end = layout.spans[name]
            vector = np.frombuffer(data[begin:end], _DTYPES[info.dtype]).astype(np.float64)
            if not np.isfinite(vector).all():
                cause = f"{file}: {name} has entries that are not among the finite numbers"
                raise NormStatsError.of("norm-stats-not-finite", cause, "name another file: --norm-stats FILE")
            found[name] = vector
    return found


def _differ(one: np.ndarray | None, other: np.ndarray) -> bool:
    return one is None or not np.array_equal(one, other)
