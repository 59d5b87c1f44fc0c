"""The statistics and their JSON form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from rlinf_isaac.ground.atomic import write_file
from rlinf_isaac.ground.digest import bytes_digest

KEYS = ("state", "actions")  # the only keys that OpenPI's transforms look at
VECTORS = ("mean", "std", "q01", "q99")
QUANTILES = (0.01, 0.99)


@dataclass(frozen=True, eq=False)
class FeatureStats:
    """Statistics of one feature, each a float64 vector (dim,). The quantiles may be absent; pi0.5 needs them."""

    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray | None = None
    q99: np.ndarray | None = None

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return len(self.mean)

    def as_dict(self) -> dict[str, list[float] | None]:
        """The object in ``norm_stats.json``."""
        vectors = {name: getattr(self, name) for name in VECTORS}
        return {name: None if vector is None else vector.tolist() for name, vector in vectors.items()}


@dataclass(frozen=True, eq=False)
class NormStats:
    """Statistics of ``state`` and ``actions``."""

    state: FeatureStats
    actions: FeatureStats

    def to_json(self) -> str:
        """``norm_stats.json`` as OpenPI reads it. Equal statistics give equal bytes."""
        stats = {key: getattr(self, key).as_dict() for key in KEYS}
        return json.dumps({"norm_stats": stats}, indent=2, allow_nan=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of the bytes that `save` writes."""
        return digest(self.to_json().encode())

    def save(self, path: str | Path) -> None:
        """Write `to_json` atomically; parent directories are created."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_file(path, self.to_json())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NormStats) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.digest)


def digest(data: bytes) -> str:
    """sha256 of a ``norm_stats.json``, by which checkpoints and evaluations identify their statistics."""
    return bytes_digest(data)
