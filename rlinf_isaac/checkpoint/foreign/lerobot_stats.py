"""Converts lerobot's statistics to OpenPI's ``norm_stats.json``, without torch.

A trained policy of lerobot has them in the safetensors file of its preprocessor's normaliser, by feature and vector:
``observation.state.mean``, ``action.q01``. lerobot computes and applies them frame by frame; the float32 numbers are
copied unchanged. lerobot adds 1e-8 to a standard deviation, OpenPI 1e-6; lerobot adds nothing to a range of quantiles
that is not zero. These differences matter only for a dim that hardly moves.
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
    """Statistics of a lerobot policy.

    Attributes:
        path: the file that holds them.
        data: bytes of the resulting ``norm_stats.json``; equal files give equal bytes.
        record: JSON-ready description of the conversion.
    """

    path: Path
    data: bytes
    record: dict[str, Any]


def find_lerobot_stats(root: Path) -> LerobotStats | None:
    """The statistics with which the policy at `root` normalises; None if it has none, like a base without fine-tuning.

    Raises:
        BundleError: a processor's JSON or safetensors file is damaged.
        NormStatsError: the file that the processor names is missing or lacks statistics, or the postprocessor has
            different ones.
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
            raise NormStatsError.of("ambiguous-norm-stats", cause, "name the right ones: --norm-stats FILE")
    record = {
        "format": "lerobot",
        "keys": {feature: key for feature, key in FEATURES.items()},
        "dropped": sorted({name.rpartition(".")[0] for name in vectors} - FEATURES.keys()),
        "eps": eps,
        "eps_here": 1e-6,
    }
    return LerobotStats(file, json.dumps({"norm_stats": stats}, indent=2, allow_nan=False).encode(), record)


def _state_file(root: Path, name: str) -> tuple[Path, float | None] | None:
    """The safetensors file of the processor's normalising step, and its epsilon; None if there is no such step."""
    values = read_object(root / name)
    if values is None:
        return None
    statements = Statements()
    for entries in steps_of(values, name, statements):
        if entries.word("registry_name") == _STEPS[name] and (state := entries.word("state_file")) is not None:
            # The file must be beside its JSON: with a path, the JSON could name any file of this machine.
            if Path(state).name != state or not state.endswith(".safetensors"):
                cause = f"{root / name} names {ascii(state[:80])[1:-1]}, which is not a safetensors file beside it"
                raise NormStatsError.of("no-norm-stats", cause, _COPY)
            if not (root / state).is_file():
                raise NormStatsError.of("no-norm-stats", f"{root / state} is missing, which {name} names", _COPY)
            eps = (entries.inner("config") or {}).get("eps")
            return root / state, eps if isinstance(eps, float) else None
    if statements.problems:
        raise NormStatsError(statements.problems)
    return None


def _vectors(file: Path) -> dict[str, np.ndarray]:
    """All vectors of floats in a file. Statistics of images, which have more axes, and counts are left out."""
    layout = read_layout(file)
    data = read_bytes(file, _MAX_BYTES) if file.stat().st_size <= _MAX_BYTES else b""
    vectors = {}
    for name, info in layout.tensors.items():
        if info.dtype in _DTYPES and len(info.shape) == 1 and 0 < info.shape[0] < _MAX_DIMS and data:
            begin, end = layout.spans[name]
            vector = np.frombuffer(data[begin:end], _DTYPES[info.dtype]).astype(np.float64)
            if not np.isfinite(vector).all():
                cause = f"{file}: {name} has NaN or infinite entries"
                raise NormStatsError.of("norm-stats-not-finite", cause, "name another file: --norm-stats FILE")
            vectors[name] = vector
    return vectors


def _differ(one: np.ndarray | None, other: np.ndarray) -> bool:
    return one is None or not np.array_equal(one, other)
