"""Datasets whose ``meta/`` or parquet files were written by somebody who wants more than to be read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from faults.attack import Attack, Edit, write
from faults.hostile_json import DOCTOR, SFT

INFO = "dataset/meta/info.json"
EPISODES = "dataset/meta/episodes.jsonl"
TASKS = "dataset/meta/tasks.jsonl"
DATA = "dataset/data/chunk-000/episode_000000.parquet"
ESC = "\x1b[2J\x1b]0;gone\x07\x9b31m\u202e\r"


def _info(change: Callable[[dict[str, Any]], object]) -> Edit:
    def edit(root: Path) -> None:
        info = json.loads((root / INFO).read_bytes())
        change(info)
        (root / INFO).write_text(json.dumps(info))

    return edit


def _set(**values: Any) -> Edit:
    return _info(lambda info: info.update(values))


def _video(template: Any, name: str = "film") -> Edit:
    """A camera of mp4 files whose places a template says."""

    def change(info: dict[str, Any]) -> None:
        info["features"][name] = {"dtype": "video", "shape": [32, 32, 3], "names": None}
        info["video_path"] = template

    return _info(change)


TEMPLATES = {
    "two billion blanks": "data/{episode_index:>2000000000}",
    "a width within a width": "data/{episode_index:{episode_chunk}}",
    "an attribute": "data/{episode_index.__class__}",
    "an attribute of everything": "data/{episode_index.__class__.__init__.__globals__}",
    "an entry": "data/{episode_index[0]}",
    "a conversion": "data/{episode_index!r:>9999999}",
    "a precision": "data/{episode_index:.999999999f}",
    "another field": "data/{secret}",
    "a field of no name": "data/{}",
    "a field by number": "data/{0}",
    "a brace alone": "data/{episode_index",
    "a brace twice": "data/{{episode_index}}",
    "a null byte": "data/\0{episode_index:06d}.parquet",
    "an absolute path": "/etc/passwd",
    "a way out": "data/../../../../../../etc/passwd",
    "a name without end": "a" * 300_000,
    "a file name of four thousand letters": "data/" + "a" * 900 + "/" + "b" * 90,
    "commands for the terminal": f"data/{ESC}/{{episode_index:06d}}.parquet",
    "a directory": "data",
    "a device": "dev/../data/{episode_index:06d}",
    "no text": 7,
    "a list": ["data"],
    "null": None,
    "an empty text": "",
}
_TEMPLATES = [
    Attack(f"doctor: data_path is {name}", DOCTOR, _set(data_path=text), ("dataset",))
    for name, text in TEMPLATES.items()
]
_VIDEOS = [
    Attack(f"doctor: video_path is {name}", DOCTOR, _video(TEMPLATES[name]), ("dataset",))
    for name in ("two billion blanks", "an attribute", "an absolute path", "a way out", "a null byte", "null")
] + [
    Attack(
        "doctor: a video whose name leads out", DOCTOR, _video("videos/{video_key}/x.mp4", "../../../etc"), ("dataset",)
    ),
    Attack("doctor: a video whose name is absolute", DOCTOR, _video("{video_key}", "/etc/passwd"), ("dataset",)),
    Attack("doctor: a video of commands", DOCTOR, _video("videos/{video_key}.mp4", ESC), ("dataset",)),
]

VALUES: dict[str, Any] = {
    "fps of a hundred digits": {"fps": 10**39},
    "fps beyond all numbers": {"fps": "1e999"},
    "negative fps": {"fps": -20},
    "fps as an object": {"fps": {"$": 1}},
    "a version that is a list": {"codebase_version": ["v2.1"]},
    "a version of commands": {"codebase_version": ESC},
    "no features": {"features": {}},
    "features as a list": {"features": ["action"]},
    "a feature as a number": {"features": {"action": 7}},
    "a shape of a hundred thousand dims": {"features": {"action": {"dtype": "float32", "shape": [1] * 100_000}}},
    "a shape larger than memory": {"features": {"action": {"dtype": "float32", "shape": [10**12]}}},
    "a shape of commands": {"features": {"action": {"dtype": "float32", "shape": ESC}}},
    "a dtype of commands": {"features": {"action": {"dtype": ESC, "shape": [7]}}},
    "a dtype that is an object": {"features": {"action": {"dtype": "object", "shape": [7]}}},
    "a dtype that numpy parses": {"features": {"action": {"dtype": "(1000000,1000000)f8", "shape": [7]}}},
    "names of commands": {"features": {"action": {"dtype": "float32", "shape": [7], "names": [ESC] * 7}}},
    "names that are objects": {
        "features": {"action": {"dtype": "float32", "shape": [7], "names": {"a": {"b": [[1]]}}}}
    },
    "a feature's name of commands": {"features": {ESC: {"dtype": "float32", "shape": [7]}}},
    "chunks of no episodes": {"chunks_size": 0},
    "negative chunks": {"chunks_size": -1},
    "chunks of half an episode": {"chunks_size": 0.5},
    "more episodes than anyone has": {"total_episodes": 10**30},
    "frames in a text": {"total_frames": "1" * 100_000},
    "a robot of commands": {"robot_type": ESC, "fps": 7},
}
_VALUES = [Attack(f"doctor: {name}", DOCTOR, _set(**values), ("dataset",)) for name, values in VALUES.items()]


def _lines(name: str, *rows: Any) -> Edit:
    return write(name, "".join(json.dumps(row) + "\n" for row in rows))


_ROWS = [
    Attack(f"doctor: {name}", DOCTOR, edit, ("dataset",))
    for name, edit in {
        "an episode beyond counting": _lines(EPISODES, {"episode_index": 10**10, "length": 10**10}),
        "an episode of a negative length": _lines(EPISODES, {"episode_index": 0, "length": -(10**10)}),
        "an episode of a length with a comma": _lines(EPISODES, {"episode_index": 0, "length": 1.5}),
        "an episode of nothing": _lines(EPISODES, {}),
        "an episode that is a list": _lines(EPISODES, [0, 1]),
        "an index that is a text": _lines(EPISODES, {"episode_index": ESC, "length": 1}),
        "one episode a hundred thousand times": write(EPISODES, '{"episode_index": 0, "length": 1}\n' * 100_000),
        "a hundred thousand episodes that are not there": write(
            EPISODES, "".join(f'{{"episode_index": {n}, "length": 1}}\n' for n in range(100_000))
        ),
        "a line without end": write(EPISODES, b'{"episode_index": "' + b"1" * 3_000_000),
        "more lines than memory": write(EPISODES, b"{}\n" * 25_000_000),
        "a task that is no text": _lines(TASKS, {"task_index": 0, "task": [ESC]}),
        "a task of commands": _lines(TASKS, {"task_index": 0, "task": ESC}),
        "a task of a megabyte": _lines(TASKS, {"task_index": 0, "task": "Stack. " * 140_000}),
        "a task's index that is none": _lines(TASKS, {"task_index": 2**70, "task": "Stack."}),
    }.items()
]


def _table(**columns: Any) -> Edit:
    """Other columns in the place of an episode's."""

    def edit(root: Path) -> None:
        (root / DATA).unlink()
        pq.write_table(pa.table(columns), root / DATA, compression="zstd")

    return edit


def _repeated(rows: int) -> Edit:
    """Columns as they should be, of so many rows, all the same: few bytes that become many."""

    def edit(root: Path) -> None:
        table = pq.read_table(root / DATA)
        columns = {}
        for name in table.column_names:
            value = table[name].combine_chunks()[:1]
            if not pa.types.is_struct(value.type):
                columns[name] = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), value.cast(value.type))
        writable = {name: column for name, column in columns.items() if not pa.types.is_nested(column.type.value_type)}
        (root / DATA).unlink()
        pq.write_table(pa.table(writable), root / DATA, compression="zstd")

    return edit


def _bytes(change: Callable[[bytes], bytes]) -> Edit:
    return lambda root: write(DATA, change((root / DATA).read_bytes()))(root)


def _long_tasks(root: Path) -> None:
    """Version 3.0, and a table of tasks whose one instruction of eight megabytes stands for thousands."""
    _set(codebase_version="v3.0")(root)
    task = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["Stack. " * 1_200_000]))
    table = pa.table({"task_index": pa.array(range(3000)), "task": task})
    pq.write_table(table, root / "dataset/meta/tasks.parquet", compression="zstd")


def _v30(change: Callable[[dict[str, Any]], object], **columns: Any) -> Edit:
    """Version 3.0, with these episodes."""

    def edit(root: Path) -> None:
        _set(codebase_version="v3.0", data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet")(root)
        _info(change)(root)
        place = root / "dataset/meta/episodes/chunk-000"
        place.mkdir(parents=True)
        own = {"episode_index": [0], "length": [1], "data/chunk_index": [0], "data/file_index": [0]}
        pq.write_table(pa.table({**own, **columns}), place / "file-000.parquet")
        pq.write_table(pa.table({"task_index": [0], "task": ["Stack."]}), root / "dataset/meta/tasks.parquet")

    return edit


def _links(root: Path) -> None:
    """Ten directories, each with two links to the next: a thousand ways to the last."""
    for level in range(12):
        place = root / f"dataset/videos/level{level}"
        place.mkdir(parents=True)
        for name in ("a", "b"):
            (place / name).symlink_to(f"../level{level + 1}")
    (root / "dataset/videos/level12").mkdir()


def _many_files(root: Path) -> None:
    for number in range(2000):
        (root / f"dataset/data/chunk-000/{number}{ESC.replace('/', '')}.parquet").touch()


_PARQUET = [
    Attack(f"{words[0]}: {name}", words, edit, needs)
    for name, words, needs, edit in (
        ("parquet of other columns", DOCTOR, ("dataset",), _table(x=[1])),
        ("parquet of columns of commands", DOCTOR, ("dataset",), _table(**{ESC: [1]})),
        ("parquet of no rows", DOCTOR, ("dataset",), _table(x=pa.array([], pa.int64()))),
        ("parquet of ten thousand columns", DOCTOR, ("dataset",), _table(**{f"c{n}": [1] for n in range(10_000)})),
        ("parquet of lists in lists", DOCTOR, ("dataset",), _table(action=pa.array([[[[[[1.0]]]]]]))),
        ("parquet of null", SFT, ("dataset", "preset.yaml"), _table(action=pa.nulls(5))),
        ("parquet of three million equal rows", DOCTOR, ("dataset",), _repeated(3_000_000)),
        ("parquet cut off", DOCTOR, ("dataset",), _bytes(lambda data: data[: len(data) // 2])),
        ("parquet without its end", DOCTOR, ("dataset",), _bytes(lambda data: data[:-8])),
        (
            "parquet whose footer has no end",
            DOCTOR,
            ("dataset",),
            _bytes(lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1"),
        ),
        (
            "parquet with a footer of letters",
            DOCTOR,
            ("dataset",),
            _bytes(lambda data: data[:-3000] + b"a" * 2992 + data[-8:]),
        ),
        ("parquet of letters", DOCTOR, ("dataset",), _bytes(lambda data: b"PAR1" + b"a" * len(data) + b"PAR1")),
        (
            "parquet with pages of letters",
            DOCTOR,
            ("dataset",),
            _bytes(lambda data: data[:4] + b"\xff" * 20_000 + data[20_004:]),
        ),
        ("version 3.0 without its files", DOCTOR, ("dataset",), _set(codebase_version="v3.0")),
        ("an instruction that grows", DOCTOR, ("dataset",), _long_tasks),
        ("a chunk that is negative", DOCTOR, ("dataset",), _v30(lambda info: None, **{"data/chunk_index": [-1]})),
        ("a chunk that is a text", DOCTOR, ("dataset",), _v30(lambda info: None, **{"data/chunk_index": [ESC]})),
        (
            "a chunk that is not there",
            DOCTOR,
            ("dataset",),
            _v30(lambda info: None, **{"data/chunk_index": pa.array([None], pa.int64())}),
        ),
        (
            "a template of another version",
            DOCTOR,
            ("dataset",),
            _v30(lambda info: info.update(data_path=TEMPLATES["a way out"])),
        ),
        (
            "links to links",
            ("norm_stats", "--dataset", "dataset", "--preset", "preset.yaml", "--output", "out"),
            ("dataset", "preset.yaml"),
            _links,
        ),
        (
            "two thousand stray files of commands",
            DOCTOR,
            ("dataset",),
            lambda root: (_many_files(root), _set(fps=7)(root)),
        ),
        ("a dataset in a circle", DOCTOR, (), lambda root: (root / "dataset").symlink_to("dataset")),
        ("a dataset that is a pipe", DOCTOR, (), lambda root: os.mkfifo(root / "dataset")),
    )
]

DATASETS = [*_TEMPLATES, *_VIDEOS, *_VALUES, *_ROWS, *_PARQUET]
