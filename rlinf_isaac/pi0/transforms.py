"""OpenPI's data transforms in numpy: resize with padding, normalise, pad. Source: ``openpi/transforms.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from rlinf_isaac.errors import NormStatsError

if TYPE_CHECKING:
    from rlinf_isaac.data.norm_stats import FeatureStats

NormMode = Literal["zscore", "quantile"]

CAMERA_OF_VIEW = {"front": "base_0_rgb", "wrist": "left_wrist_0_rgb"}
"""Our two views -> OpenPI's camera keys. The third camera, ``right_wrist_0_rgb``, does not exist on this robot."""

EPSILON = 1e-6


def resize_with_pad(images: np.ndarray, size: int) -> np.ndarray:
    """Resizes without distortion and pads with black to a square, as ``openpi_client.image_tools.resize_with_pad``.

    Args:
        images: (..., h, w, 3) uint8.
        size: side of the result in pixels.

    Returns:
        (..., size, size, 3) uint8; `images` itself where it has that size already.
    """
    height, width = images.shape[-3:-1]
    if (height, width) == (size, size):
        return images
    flat = images.reshape(-1, height, width, images.shape[-1])
    return np.stack([_resize_one(image, size) for image in flat]).reshape(*images.shape[:-3], size, size, -1)


def resized_sides(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width in pixels of an image in the square of `size` that `resize_with_pad` makes; 0 of a side that
    is more than `size` times shorter than the other, which cannot be resized."""
    ratio = max(width / size, height / size)
    return int(height / ratio), int(width / ratio)


def _resize_one(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    height, width = image.shape[:2]
    resized_height, resized_width = resized_sides(height, width, size)
    # Pillow's bilinear filter widens when it shrinks (no aliasing); torch's and OpenCV's do not.
    resized = Image.fromarray(image).resize((resized_width, resized_height), resample=Image.Resampling.BILINEAR)
    top, left = (size - resized_height) // 2, (size - resized_width) // 2
    canvas = np.zeros((size, size, image.shape[-1]), dtype=image.dtype)
    canvas[top : top + resized_height, left : left + resized_width] = np.asarray(resized)
    return canvas


def pad_last(x: np.ndarray, width: int) -> np.ndarray:
    """Pads the last axis with zeros to `width`. ValueError when it is wider already."""
    missing = width - x.shape[-1]
    if missing < 0:
        raise ValueError(f"{x.shape[-1]} dims do not fit into {width}")
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])


def norm_mode(norm: str, pi05: bool) -> NormMode:
    """The normalisation `policy.norm` asks for. ``auto`` is OpenPI's rule: z-score for pi0, quantiles for pi0.5.

    Raises:
        NormStatsError: `norm` is none of ``auto``, ``zscore``, ``quantile``.
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

    Statistics may be of more dims than the data, as those that are published for a model's full width: the first ones
    count, as in OpenPI.

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
        """The normaliser of field `name`. NormStatsError when quantiles are needed and missing."""
        if mode == "zscore":
            return cls(name, _float64(stats.mean), _float64(stats.std) + EPSILON, 0.0)
        if stats.q01 is None or stats.q99 is None:
            cause = f"the norm stats of {name!r} have no q01/q99, which quantile normalisation (pi0.5) needs"
            raise NormStatsError.of("norm-stats-no-quantiles", cause, "recompute them with the norm_stats verb")
        low, high = _float64(stats.q01), _float64(stats.q99)
        return cls(name, low, (high - low + EPSILON) / 2, -1.0)

    @property
    def dims(self) -> int:
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
        """Raises NormStatsError where the data has more dims than the statistics."""
        if dims > self.dims:
            cause = f"{self.name!r} has {dims} dims but its norm stats have {self.dims}"
            cure = "use the norm stats of the dataset this policy was trained on"
            raise NormStatsError.of("norm-stats-dim", cause, cure)

    def _checked(self, x: np.ndarray) -> np.ndarray:
        self.check_dims(x.shape[-1])
        return np.asarray(x, dtype=np.float64)


def _float64(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, dtype=np.float64)
