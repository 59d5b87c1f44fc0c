"""Faults of HDF5 demonstrations that people really meet, and those of people who mean harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus.case import Case


def _edit(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Open the file for editing and change something in it."""

    def edit(path: Path) -> None:
        import h5py

        with h5py.File(path, "r+") as file:
            change(file)

    return edit


def _put(name: str, values: Any) -> Callable[[Path], None]:
    """Replace an array."""

    def change(file: Any) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, data=values)

    return _edit(change)


def _delete(name: str) -> Callable[[Path], None]:
    return _edit(lambda file: file.__delitem__(name))


def _attribute(name: str, value: Any, of: str = "data") -> Callable[[Path], None]:
    return _edit(lambda file: file[of].attrs.__setitem__(name, value))


def _link(name: str, target: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Put a link in the place of something."""

    def change(file: Any) -> None:
        import h5py

        del file[name]
        file[name] = target(h5py)

    return _edit(change)


def _no_success(file: Any) -> None:
    for demo in file["data"].values():
        demo.attrs["success"] = False


def _grouped(file: Any) -> None:
    del file["data/demo_1/actions"]
    file["data/demo_1/actions/pose"] = np.zeros((7, 7), np.float32)


def _put_type(name: str) -> Callable[[Path], None]:
    """HDF5 can store a type under a name, too."""

    def change(file: Any) -> None:
        del file[name]
        file[name] = np.dtype("f4")

    return _edit(change)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _external_link_in_the_middle(file: Any) -> None:
    import h5py

    file["elsewhere"] = h5py.ExternalLink("/etc/hostname.hdf5", "/data")
    del file["data/demo_1"]
    file["data/demo_1"] = h5py.SoftLink("/elsewhere/demo_1")


def _external(h5: Any) -> Any:
    return h5.ExternalLink("/etc/x.hdf5", "/data")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replaced(data: bytes) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_bytes(data)

    return edit


def _circle(file: Any) -> None:
    import h5py

    del file["data/demo_1"]
    file["data/demo_1"] = h5py.SoftLink("/data/other")
    file["data/other"] = h5py.SoftLink("/data/demo_1")


def _external_storage(file: Any) -> None:
    del file["data/demo_0/actions"]
    file.create_dataset("data/demo_0/actions", (5, 7), "f4", external=[("/etc/passwd", 0, 140)])


def _virtual(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((5, 7), "f4")
    layout[...] = h5py.VirtualSource("/etc/hostname.hdf5", "x", (5, 7))
    del file["data/demo_0/actions"]
    file.create_virtual_dataset("data/demo_0/actions", layout)


def _bomb(name: str, shape: tuple[int, ...], dtype: str, chunks: tuple[int, ...] | None) -> Callable[[Path], None]:
    """An array that declares much and stores nothing."""

    def change(file: Any) -> None:
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=chunks, compression="gzip" if chunks else None)
        file["data/demo_0"].attrs["num_samples"] = shape[0]

    return _edit(change)


def _bomb_of_a_demonstration(file: Any) -> None:
    demo = file["data/demo_0"]
    demo.attrs["num_samples"] = 20_000_000
    for name in ("actions", "obs/actions", "obs/eef_pos", "obs/eef_quat", "obs/gripper_pos"):
        dims = demo[name].shape[1]
        del demo[name]
        demo.create_dataset(name, (20_000_000, dims), "f4", chunks=(1_000_000, dims), compression="gzip")
    for name in ("obs/table_cam", "obs/wrist_cam"):
        del demo[name]
        demo.create_dataset(name, (20_000_000, 12, 12, 3), "u1", chunks=(10_000, 12, 12, 3), compression="gzip")


def _actions(change: Callable[[np.ndarray], Any]) -> Callable[[Path], None]:
    def edit(file: Any) -> None:
        file["data/demo_0/actions"][...] = change(file["data/demo_0/actions"][...])

    return _edit(edit)


def _at(values: np.ndarray, value: float) -> np.ndarray:
    values[3, 2] = value
    return values


LAST_CAM = "data/demo_2/obs/wrist_cam"
_RNG = np.random.default_rng(0)
_FLOATS = _RNG.random((5, 12, 12, 3), np.float32)

CASES = [
    Case("text", "not-hdf5", _replaced(b"no hdf5")),
    Case("nothing in it", "not-hdf5", _replaced(b"")),
    Case("removed", "hdf5-missing", lambda path: path.unlink()),
    Case("a directory", "not-hdf5", _directory),
    Case("cut short", "hdf5-damaged", _cut),
    Case("no data", "hdf5-structure", _delete("data")),
    Case("data is an array", "hdf5-structure", _put("data", np.zeros(3))),
    Case("no demonstrations", "hdf5-structure", _edit(lambda file: file["data"].clear())),
    Case("a demonstration is an array", "hdf5-structure", _put("data/demo_1", np.zeros(3))),
    Case("a demonstration named with commands", "hdf5-name", _edit(lambda f: f["data"].create_group("x\x1b[2J\n"))),
    Case("no actions", "hdf5-no-action", _delete("data/demo_1/actions")),
    Case("actions are a group", "hdf5-no-action", _edit(_grouped)),
    Case("actions are a type", "hdf5-no-action", _put_type("data/demo_1/actions")),
    Case("no actions in time", "hdf5-empty", _put("data/demo_1/actions", np.zeros((0, 7), np.float32))),
    Case("a scalar as actions", "hdf5-empty", _put("data/demo_1/actions", np.float32(0))),
    Case("actions of whole numbers", "hdf5-kind", _put("data/demo_0/actions", np.zeros((5, 7), np.int64))),
    Case("actions of texts", "hdf5-kind", _put("data/demo_0/actions", np.full((5, 7), b"x"))),
    Case("other actions later", "hdf5-shape", _put("data/demo_2/actions", np.zeros((4, 6), np.float32))),
    Case("actions of three axes", "hdf5-kind", _put("data/demo_0/actions", np.zeros((5, 7, 1), np.float32))),
    Case("no observations", "hdf5-no-observations", _delete("data/demo_0/obs")),
    Case("joined observations", "hdf5-no-observations", _put("data/demo_0/obs", np.zeros((5, 9), np.float32))),
    Case("no observations later", "hdf5-no-key", _delete("data/demo_2/obs")),
    Case("a camera is missing later", "hdf5-no-key", _delete("data/demo_2/obs/wrist_cam")),
    Case("a camera of another size later", "hdf5-shape", _put(LAST_CAM, np.zeros((4, 8, 8, 3), "u1"))),
    Case("fewer images than actions", "hdf5-length", _put(LAST_CAM, np.zeros((3, 12, 12, 3), "u1"))),
    Case("an observation more", "hdf5-length", _put("data/demo_0/obs/eef_pos", np.zeros((6, 3), np.float32))),
    Case("another number of samples", "hdf5-length", _attribute("num_samples", 6, "data/demo_0")),
    Case("NaN in an action", "hdf5-not-finite", _actions(lambda values: _at(values, np.nan))),
    Case("infinity in an action", "hdf5-not-finite", _actions(lambda values: _at(values, -np.inf))),
    Case("too large for float32", "hdf5-not-finite", _put("data/demo_0/obs/eef_pos", np.full((5, 3), 1e300))),
    Case("images of floats", "hdf5-image", _put("data/demo_0/obs/table_cam", _FLOATS)),
    Case("images with depth", "hdf5-image", _put("data/demo_0/obs/table_cam", np.zeros((5, 12, 12, 4), "u1"))),
    Case("images of 16 bits", "hdf5-image", _put("data/demo_0/obs/table_cam", np.zeros((5, 12, 12, 3), "u2"))),
    Case("images three pixels high", "hdf5-image", _put("data/demo_0/obs/table_cam", np.zeros((5, 3, 9, 3), "u1"))),
    Case("no rate", "hdf5-no-rate", _attribute("env_args", json.dumps({"env_name": "x", "type": 2}))),
    Case("two rates", "hdf5-rates", _attribute("fps", 30.0)),
    Case(
        "a rate of 33.3",
        "hdf5-rates",
        _attribute("env_args", json.dumps({"sim_args": {"dt": 0.01, "decimation": 3}})),
    ),
    Case("rates that are none", "hdf5-no-rate", _attribute("env_args", '{"sim_args": {"dt": 1e999}}')),
    Case("env_args that are no JSON", "hdf5-no-rate", _attribute("env_args", "{'env_name': 'x'}")),
    Case("env_args that nest", "hdf5-no-rate", _attribute("env_args", "[" * 10_000 + "]" * 10_000)),
    Case("env_args that are a number", "hdf5-no-rate", _attribute("env_args", 3)),
    Case("all failed", "hdf5-all-failed", _edit(_no_success)),
    Case("observations after the action", "hdf5-phase", _attribute("obs/sample_phase", "post_step")),
    Case("a link to another file", "hdf5-link", _link("data/demo_1", _external)),
    Case("an array in another file", "hdf5-link", _link("data/demo_0/obs/eef_pos", _external)),
    Case("all data in another file", "hdf5-link", _link("data", _external)),
    Case("a link that leads to one", "hdf5-link", _edit(_external_link_in_the_middle)),
    Case("a link to nothing", "hdf5-link", _link("data/demo_1/actions", lambda h5: h5.SoftLink("/nothing"))),
    Case("links in a circle", "hdf5-link", _edit(_circle)),
    Case("data of another file", "hdf5-elsewhere", _edit(_external_storage)),
    Case("a virtual array", "hdf5-elsewhere", _edit(_virtual)),
    Case("a bomb of numbers", "hdf5-expands", _bomb("data/demo_0/actions", (1 << 28, 7), "f4", (1 << 20, 7))),
    Case("a bomb of zeros", "hdf5-expands", _bomb("data/demo_0/actions", (1 << 40, 7), "f4", None)),
    Case("a bomb of one chunk", "hdf5-expands", _bomb("data/demo_0/actions", (5, 1 << 29), "f4", (1, 1 << 29))),
    Case("a bomb of images", "hdf5-expands", _edit(_bomb_of_a_demonstration)),
]
