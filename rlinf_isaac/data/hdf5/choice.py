"""Which arrays of the demonstrations become cameras, state and action, and whether all demonstrations have them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlinf_isaac.data.hdf5.file import RESTORE, find, storage_problem
from rlinf_isaac.data.hdf5.source import Demo
from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings, first_few
from rlinf_isaac.ground.errors import DatasetError

if TYPE_CHECKING:
    import h5py

FEATURE = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*", re.ASCII)
"""Pattern of the name of a feature."""
CAMERA = "observation.images."
MOST_VECTOR_BYTES = 1 << 30
"""Largest unpacked vector of one demonstration; a million frames of a humanoid have less."""
MOST_SIDE = 16_384
"""Largest width or height of an image in pixels."""
_IMAGE = "record RGB as uint8 with 3 channels (in IsaacLab: data_type rgb, normalize=False), or leave the key out"
_SAME = "import files and demonstrations of one kind at a time; --mask, --state and --cameras choose"


@dataclass(frozen=True)
class Camera:
    """The images of one camera.

    Attributes:
        key: below ``obs``.
        feature: of the dataset.
        height, width: in pixels.
        channels_first: whether a frame is stored as (3, height, width).
    """

    key: str
    feature: str
    height: int
    width: int
    channels_first: bool

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one frame in the file."""
        return (3, self.height, self.width) if self.channels_first else (self.height, self.width, 3)


@dataclass(frozen=True)
class Part:
    """A vector, or a part of the state: (frames, dims), or (frames,) for one dim."""

    key: str
    dims: int

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each entry."""
        return tuple(f"{self.key.replace('/', '_')}_{index}" for index in range(self.dims))


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        cameras: key below ``obs`` -> feature; None: every image.
        state: keys below ``obs``, joined in this order; None: every vector of floating-point numbers.
        action: the array of a demonstration with the actions.
    """

    cameras: Mapping[str, str] | None
    state: tuple[str, ...] | None
    action: str


@dataclass(frozen=True)
class Chosen:
    """What is taken of every demonstration, and which keys below ``obs`` are left out, with the reason."""

    cameras: tuple[Camera, ...]
    state: tuple[Part, ...]
    action: Part
    left_out: Mapping[str, str]


def observations(demo: h5py.Group) -> h5py.Group | None:
    """The group ``obs`` of a demonstration, or None."""
    group = find(demo, "obs")
    return group if group is not None and hasattr(group, "keys") else None


def choose(found: FoldedFindings, demo: h5py.Group, wanted: Wanted) -> Chosen | None:
    """What to take, from the first demonstration; None where `found` now says what is missing.

    Must be called within `hdf5_errors`.
    """
    where = f"{demo.file.filename}: {demo.name}"
    obs = observations(demo)
    if obs is None:
        flat = " as one array: set concatenate_terms=False" if find(demo, "obs") is not None else ""
        cure = "record observations (IsaacLab), or extract them with dataset_states_to_obs.py (robomimic)"
        found.add("hdf5-no-observations", f"{where} has no group of observations{flat}", cure)
        return None
    cameras: list[Camera] = []
    state: list[Part] = []
    left_out: dict[str, str] = {}
    keys = [key for key in obs if found.attempt(find, obs, key) is not None]
    if wanted.cameras is not None:
        for key, feature in wanted.cameras.items():
            read = _named(found, obs, key, keys, camera=True)
            cameras += [Camera(key, feature, *read)] if read else []
    if wanted.state is not None:
        for key in wanted.state:
            dims = _named(found, obs, key, keys, camera=False)
            state += [Part(key, dims)] if dims else []
    for key in keys:
        kind, what = _kind(find(obs, key))
        if kind == "camera" and wanted.cameras is None:
            cameras.append(Camera(key, f"{CAMERA}{key}", *what))
        elif kind == "vector" and wanted.state is None:
            state.append(Part(key, what))
        elif kind == "odd" and wanted.cameras is None:
            found.add("hdf5-image", f"{where}/obs/{key} holds {what}", f"{_IMAGE}: --cameras names those to take")
        elif key not in (wanted.cameras or {}) and key not in (wanted.state or ()):
            left_out[key] = what if kind in ("other", "odd") else "not asked for"
    action = find(demo, wanted.action)
    kind, dims = _kind(action)
    if kind != "vector":
        cause = f"{where}/{wanted.action} is {'a camera' if kind == 'camera' else dims}"
        found.add("hdf5-kind", cause, "name an array of numbers with --action-key")
    if not cameras and wanted.cameras is None:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in left_out.items())
        cure = "record with cameras, or pass --cameras none for a dataset without images, which no policy here reads"
        found.add("hdf5-no-images", f"{where}/obs has no images ({reasons or first_few(keys) or 'nothing'})", cure)
    if not state and wanted.state is None:
        cause = f"{where}/obs has no vector of floating-point numbers; it has {first_few(keys) or 'nothing'}"
        found.add("hdf5-no-state", cause, "record the robot's state, and name it with --state")
    for camera in cameras:
        if not FEATURE.fullmatch(camera.feature):
            cause = f"{where}: {camera.key[:200]} would become the feature {camera.feature[:200]!r}"
            found.add("hdf5-name", cause, f"give it a name of letters: --cameras KEY={CAMERA}front")
    complete = kind == "vector" and state and (cameras or wanted.cameras == {})
    return Chosen(tuple(cameras), tuple(state), Part(wanted.action, dims), left_out) if complete else None


def _named(found: FoldedFindings, obs: h5py.Group, key: str, keys: list[str], *, camera: bool) -> Any:
    """Sizes of an image or dims of a vector that a person has named; None where `found` says what is wrong."""
    where, option = f"{obs.file.filename}: {obs.name}", "--cameras" if camera else "--state"
    array = found.attempt(find, obs, key)
    if array is None:
        cause = f"{where} has no {key}; it has {first_few(keys) or 'nothing'}"
        found.add("hdf5-no-key", cause, f"name keys of the file with {option}")
        return None
    kind, what = _kind(array)
    if kind == ("camera" if camera else "vector"):
        return what
    if camera:
        what = "a vector" if kind == "vector" else what
        found.add("hdf5-image", f"{where}/{key} is {what}, no camera", _IMAGE)
    else:
        cause = f"{where}/{key} is {'a camera' if kind == 'camera' else what}, no state"
        found.add("hdf5-kind", cause, "name arrays (frames, dims) of floating-point numbers with --state")
    return None


def _kind(array: h5py.Group | h5py.Dataset | None) -> tuple[str, Any]:
    """``camera`` with (height, width, channels first), ``vector`` with its dims, or a description of ``other`` things;
    ``odd`` are images that cannot be taken."""
    if array is None or not hasattr(array, "dtype"):
        return "other", "a group"
    shape, dtype = array.shape, array.dtype
    what = f"{dtype} {shape}"
    if shape is None or dtype.shape or dtype.kind not in "biuf":
        return "other", f"{dtype}, no numbers" if shape else "empty"
    if dtype.kind == "f" and len(shape) in (1, 2) and math.prod(shape[1:]) and dtype.itemsize <= 8:
        return "vector", math.prod(shape[1:])
    if len(shape) == 4 and shape[3] == 4 and dtype == "uint8":
        return "odd", "images of four channels"
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        return "other", what
    if dtype != "uint8":
        return "odd", f"images of {dtype}, whose scale nobody says" if dtype.kind == "f" else f"images of {dtype}"
    if shape[1] == shape[3] == 3 or min(shape[1:]) < 1 or max(shape[1:]) > MOST_SIDE:
        return "odd", f"{what}, no image that anybody records"
    first = shape[1] == 3
    height, width = shape[2:] if first else shape[1:3]
    return "camera", (height, width, first)


def arrays_of(demo: h5py.Group, chosen: Chosen) -> Iterator[tuple[str, tuple[int, ...], h5py.Dataset | None]]:
    """Name, shape of one frame and array of everything that is taken of a demonstration."""
    obs = observations(demo)
    for camera in chosen.cameras:
        yield f"obs/{camera.key}", camera.stored_shape, None if obs is None else find(obs, camera.key)
    for part in chosen.state:
        yield f"obs/{part.key}", (part.dims,), None if obs is None else find(obs, part.key)
    yield chosen.action.key, (chosen.action.dims,), find(demo, chosen.action.key)


def check_demo(found: FoldedFindings, group: h5py.Group, demo: Demo, chosen: Chosen) -> int:
    """Compare a demonstration with what was chosen, and read its numbers; returns its unpacked bytes.

    Must be called within `hdf5_errors`. Images are not read.
    """
    import numpy as np

    unpacked = 0
    try:
        arrays = list(arrays_of(group, chosen))
    except DatasetError as error:
        found.extend(error.problems)
        return 0
    for name, frame, array in arrays:
        where = f"{demo.path}: /data/{demo.name}/{name}"
        if array is None or not hasattr(array, "dtype") or array.shape is None:
            found.add("hdf5-no-key", f"{where} is missing, other demonstrations have it", _SAME)
            continue
        image, shape = len(frame) == 3, array.shape[1:] or (1,)
        fitting = array.dtype == "uint8" if image else array.dtype.kind == "f" and array.dtype.itemsize <= 8
        if shape != frame or not fitting or not array.shape:
            wanted = f"{'uint8' if image else 'floating-point'} {frame}"
            found.add("hdf5-shape", f"{where} has frames of {array.dtype} {shape}, others have {wanted}", _SAME)
        elif array.shape[0] != demo.frames:
            cause = f"{where} has {array.shape[0]} frames, and there are {demo.frames} actions"
            found.add("hdf5-length", cause, RESTORE)
        elif (problem := storage_problem(array)) is not None:
            found.extend([problem])
        elif not image and array.nbytes > MOST_VECTOR_BYTES:
            found.add("hdf5-expands", f"{where} claims to hold {array.nbytes} bytes of numbers", RESTORE)
        else:
            unpacked += array.nbytes
            if not image and not (finite := np.isfinite(as_float32(array[()]))).all():
                at = np.argwhere(~finite)[0]
                cause = f"{where}: frame {at[0]} holds {array[tuple(at)]}, which is no finite number of 32 bits"
                found.add("hdf5-not-finite", cause, "find out why it was recorded, or leave it out (--mask, --state)")
    return unpacked


def as_float32(values: Any) -> Any:
    """Numbers in LeRobot's usual precision; those that are too large become infinite."""
    import numpy as np

    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def parse_cameras(text: str) -> tuple[dict[str, str], list[str]]:
    """``key=feature,key`` -> key -> feature, and the words that are not of this form, or name something twice."""
    chosen: dict[str, str] = {}
    wrong = []
    for word in text.replace(",", " ").split():
        key, equals, feature = word.partition("=")
        feature = feature if equals else f"{CAMERA}{key}"
        if not key or not FEATURE.fullmatch(feature) or key in chosen or feature in chosen.values():
            wrong.append(word)
        chosen[key] = feature
    return chosen, wrong
