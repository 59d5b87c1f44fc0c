"""Writes the dataset of a plan. It appears when it is complete, whatever ends the process before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlinf_isaac.data.hdf5.choice import Camera, arrays_of, as_float32
from rlinf_isaac.data.hdf5.file import find, hdf5_errors, open_hdf5
from rlinf_isaac.data.hdf5.plan import Plan
from rlinf_isaac.data.hdf5.recipe import check_same, recipe, record
from rlinf_isaac.data.hdf5.source import Demo
from rlinf_isaac.data.lerobot.format import ACTION, STATE, Feature, image_feature, vector_feature
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.ground.atomic import claimed
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.ground.events import Event, Progress
from rlinf_isaac.ground.reading import open_regular
from rlinf_isaac.media.png import encode_png

if TYPE_CHECKING:
    import h5py

HASHING = "hash"
LABEL = "import"
MOST_BYTES_AT_ONCE = 64_000_000
"""Images that are unpacked together."""
_HASHED_AT_ONCE = 1 << 24


def import_demonstrations(plan: Plan, root: Path) -> Iterator[Event]:
    """Write the demonstrations of a plan as a LeRobot v2.1 dataset.

    An observation and the action that was taken on it become one frame, in the order of the file. Numbers are rounded
    to float32, images stay as they are. If the same import has made the dataset before, it is kept.

    Args:
        plan: from `make_plan`.
        root: the dataset's directory.

    Yields:
        `Progress`, in bytes while the files are hashed, then in frames.

    Raises:
        DatasetError: `root` has something else, a file was changed meanwhile, or its images cannot be unpacked.
        InvalidJob: another process writes to `root`.
    """
    with claimed(root):
        before = [_identity(file.path) for file in plan.files]
        digests: dict[Path, str] = {}
        yield from _hash(plan, digests)
        made = recipe(plan, digests)
        if root.exists():
            check_same(root, made, hashed=True)
            LeRobotDataset(root)  # raises if a file is missing or damaged
            yield Progress(LABEL, plan.frames, plan.frames, f"kept: {root} was made by the same import")
            return
        writer = LeRobotWriter(root, fps=plan.fps, features=_features(plan), robot_type=_robot(plan))
        with writer, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as encoders:
            yield from _write(plan, writer, encoders)
            for file, identity in zip(plan.files, before, strict=True):
                if _identity(file.path) != identity:
                    cause = f"{file.path} was changed while it was read"
                    raise DatasetError.of("hdf5-changed", cause, "wait until it is complete, and try again")
            writer.extra = record(plan, made)


def _write(plan: Plan, writer: LeRobotWriter, encoders: Executor) -> Iterator[Event]:
    done = 0
    for source in plan.files:
        with open_hdf5(source.path) as file:
            for demo in (demo for demo in plan.demos if demo.path == source.path):
                with hdf5_errors(demo.path):
                    group = find(file, f"/data/{demo.name}")
                    columns = _read(plan, group, demo, encoders)
                writer.add_episode(columns, demo.prompt or "")
                done += demo.frames
                yield Progress(LABEL, done, plan.frames)


def _read(plan: Plan, group: h5py.Group, demo: Demo, encoders: Executor) -> dict[str, Any]:
    """The columns of an episode: images as PNG, state and action as float32 (frames, dims)."""
    arrays = {name: array for name, _, array in arrays_of(group, plan.chosen)}
    columns: dict[str, Any] = {}
    for camera in plan.chosen.cameras:
        columns[camera.feature] = _encode(arrays[f"obs/{camera.key}"], camera, demo, encoders)
    state = [_vector(arrays[f"obs/{part.key}"], demo) for part in plan.chosen.state]
    columns[STATE] = np.concatenate(state, axis=1)
    columns[ACTION] = _vector(arrays[plan.chosen.action.key], demo)
    return columns


def _encode(array: h5py.Dataset, camera: Camera, demo: Demo, encoders: Executor) -> list[bytes]:
    """The images of a camera as PNG, a slice of frames at a time, so that memory does not grow with the episode."""
    pngs: list[bytes] = []
    step = max(1, MOST_BYTES_AT_ONCE // (camera.height * camera.width * 3))
    for first in range(0, demo.frames, step):
        images = array[first : first + step]
        if camera.channels_first:
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        pngs += encoders.map(encode_png, images)
    return pngs


def _vector(array: h5py.Dataset, demo: Demo) -> np.ndarray:
    return as_float32(array[()]).reshape(demo.frames, -1)


def _features(plan: Plan) -> dict[str, Feature]:
    images = {camera.feature: image_feature(camera.height, camera.width) for camera in plan.chosen.cameras}
    names = [name for part in plan.chosen.state for name in part.names]
    # Nobody says what the dims of the action are: they get no names, rather than ones that mean nothing.
    return images | {STATE: vector_feature(names), ACTION: Feature("float32", (plan.chosen.action.dims,))}


def _robot(plan: Plan) -> str | None:
    """The robot that robosuite's arguments name; None where the files name none, or several."""
    robots = set()
    for file in plan.files:
        kwargs = file.env_args.get("env_kwargs")
        said = kwargs.get("robots") if isinstance(kwargs, Mapping) else None
        words = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        robots.add("+".join(word for word in words if isinstance(word, str)) or None)
    return robots.pop() if len(robots) == 1 else None


def _hash(plan: Plan, digests: dict[Path, str]) -> Iterator[Event]:
    """Fill in the sha256 of every file."""
    import hashlib

    total, done = plan.stored_bytes, 0
    for source in plan.files:
        digest = hashlib.sha256()
        with open_regular(source.path) as file:
            while data := file.read(_HASHED_AT_ONCE):
                digest.update(data)
                done += len(data)
                yield Progress(HASHING, min(done, total), total, unit="B")
        digests[source.path] = digest.hexdigest()


def _identity(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
