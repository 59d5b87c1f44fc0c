"""OpenPI's normalisation with norm stats, in numpy. Source: ``openpi/transforms.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlinf_isaac.data.norm_stats.stats import FeatureStats
from rlinf_isaac.ground.errors import NormStatsError

NormMode = Literal["zscore", "quantile"]
EPSILON = 1e-6


def norm_mode(norm: str, pi05: bool) -> NormMode:
    """The normalisation that `policy.norm` selects. ``auto`` is OpenPI's rule: z-score for pi0, quantiles for pi0.5.

    Raises:
        NormStatsError: `norm` is not ``auto``, ``zscore`` or ``quantile``.
    """
    if norm == "auto":
        return "quantile" if pi05 else "zscore"
    if norm == "zscore":
        return "zscore"
    if norm == "quantile":
        return "quantile"
    raise NormStatsError.of("bad-norm", f"policy.norm is {norm!r}", "use auto, zscore or quantile, not e.g. z-score")


@dataclass(frozen=True)
class Normalizer:
    """OpenPI's normalisation of one field, and its inverse: normalised = (x - offset) / scale + shift.

    Statistics may have more dims than the data, as those published for a model's full width do; then the first ones are
    used, as in OpenPI.

    z-score: offset mean, scale std + 1e-6, shift 0.
    quantile: offset q01, scale (q99 - q01 + 1e-6) / 2, shift -1, so that q01..q99 becomes -1..1.

    Attributes:
        name: ``state`` or ``actions``, for messages.
        offset, scale: (D,) float64.
        shift: scalar.
    """

    name: str
    offset: np.ndarray
    scale: np.ndarray
    shift: float

    @classmethod
    def of(cls, name: str, stats: FeatureStats, mode: NormMode) -> Normalizer:
        """The normaliser of field `name`. Raises NormStatsError if quantiles are needed but missing."""
        if mode == "zscore":
            return cls(name, _float64(stats.mean), _float64(stats.std) + EPSILON, 0.0)
        if stats.q01 is None or stats.q99 is None:
            cause = f"the norm stats of {name!r} have no q01/q99, which quantile normalisation (pi0.5) needs"
            raise NormStatsError.of("norm-stats-no-quantiles", cause, "recompute them with the norm_stats verb")
        low, high = _float64(stats.q01), _float64(stats.q99)
        return cls(name, low, (high - low + EPSILON) / 2, -1.0)

    @property
    def dims(self) -> int:
        """D, the number of dims of the statistics."""
        return self.offset.shape[-1]

    def normalize(self, x: np.ndarray) -> np.ndarray:
        """Robot units (..., d), d <= D -> model units, float32."""
        x = self._checked(x)
        dims = x.shape[-1]
        return ((x - self.offset[:dims]) / self.scale[:dims] + self.shift).astype(np.float32)

    def unnormalize(self, x: np.ndarray) -> np.ndarray:
        """Model units (..., d), d <= D -> robot units, float32."""
        x = self._checked(x)
        dims = x.shape[-1]
        return ((x - self.shift) * self.scale[:dims] + self.offset[:dims]).astype(np.float32)

    def check_dims(self, dims: int) -> None:
        """Raises NormStatsError if the data has more dims than the statistics."""
        if dims > self.dims:
            cause = f"{self.name!r} has {dims} dims but its norm stats have {self.dims}"
            cure = "use the norm stats of the dataset this policy was trained on"
            raise NormStatsError.of("norm-stats-dim", cause, cure)

    def _checked(self, x: np.ndarray) -> np.ndarray:
        self.check_dims(x.shape[-1])
        return np.asarray(x, dtype=np.float64)


def _float64(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=np.float64)
