"""Names and shapes of the LeRobot format that its reader and writer share. Source: lerobot, codebase v2.1 and v3.0."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

WRITTEN_VERSION = "v2.1"
READ_VERSIONS = ("v2.1", "v3.0")
CHUNKS_SIZE = 1000  # episodes per chunk directory of v2.1
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"

STATE = "observation.state"
ACTION = "action"
FRONT_IMAGE = "observation.images.front"
WRIST_IMAGE = "observation.images.wrist"

LABELS = ("state", "action", "motor")
"""Words that converters write as the only name of a vector, in the singular or the plural."""
NUMERIC_DTYPES = ("float32", "float64", "int64", "int32", "bool")
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True)
class Feature:
    """One feature of ``meta/info.json``.

    Attributes:
        dtype: ``image`` (PNG in parquet), ``video`` (mp4 beside it), or a numpy dtype name.
        shape: shape of one frame; images are (height, width, 3).
        names: names of the entries, or of the axes of an image.
        grouped: whether the names are listed under a heading (``{"motors": [...]}``), which lerobot does for any robot.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    grouped: bool = False

    @property
    def is_visual(self) -> bool:
        """Whether its frames are camera images."""
        return self.dtype in ("image", "video")

    @property
    def dim_names(self) -> tuple[str, ...] | None:
        """A meaningful name for every entry of a vector; None if there are no such names.

        The following do not count as names: a heading (``["state"]``, which openpi's and RLinf's converters write, or
        ``{"motors": [...]}``), numbers, and one word for several entries.
        """
        names = self.names or ()
        one_per_entry = len(self.shape) == 1 and len(names) == len(set(names)) == self.shape[0]
        label = len(names) == 1 and names[0].rstrip("s") in LABELS
        if self.grouped or label or not one_per_entry or all(name.isdecimal() for name in names):
            return None
        return names

    def as_dict(self) -> dict[str, Any]:
        """The entry of ``meta/info.json``."""
        return {"dtype": self.dtype, "shape": list(self.shape), "names": list(self.names) if self.names else None}


def image_feature(height: int, width: int) -> Feature:
    """RGB images of (height, width) pixels, stored as PNG."""
    return Feature("image", (height, width, 3), ("height", "width", "channels"))


def vector_feature(names: tuple[str, ...] | list[str], dtype: str = "float32") -> Feature:
    """A vector with a name for every entry."""
    return Feature(dtype, (len(names),), tuple(names))


AUX_FEATURES: Mapping[str, Feature] = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}
"""Columns that every LeRobot dataset has beside its own features; the writer fills them in."""


def huggingface_metadata(features: Mapping[str, Feature]) -> dict[str, str]:
    """Parquet schema metadata that tells the ``datasets`` library what the columns are.

    Vectors are written as ``Sequence``, which all versions of ``datasets`` read. ``datasets>=4`` writes ``List``, which
    version 3.6, pinned by RLinf and OpenPI, cannot read ("Feature type 'List' not found").
    """
    described: dict[str, Any] = {}
    for key, feature in features.items():
        value = {"dtype": feature.dtype, "_type": "Value"}
        if feature.dtype == "image":
            described[key] = {"_type": "Image"}
        elif feature.shape == (1,):
            described[key] = value
        else:
            described[key] = {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
    return {"huggingface": json.dumps({"info": {"features": described}})}
