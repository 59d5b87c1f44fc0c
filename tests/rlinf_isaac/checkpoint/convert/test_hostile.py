"""Checkpoints of an attacker: nothing is executed, written or read elsewhere, and each gets one clear refusal, soon."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus import hostile, hostile_files, hostile_pickles
from corpus.hostile import CANARY, DCP, LEGACY, OUTPUT, SAFETENSORS, SHARDS, ZIP, Hostile
from safetensors.torch import load_file

from rlinf_isaac.checkpoint.convert import prepare, run
from rlinf_isaac.checkpoint.convert.source import load_torch
from rlinf_isaac.checkpoint.header import read_header
from rlinf_isaac.ground.errors import InvalidJob

CASES = [
    *hostile_files.ARCHIVES,
    *hostile_files.HEADERS,
    *hostile.DISTRIBUTED,
    *hostile.PLACES,
    *hostile_pickles.RUN_CODE,
    *hostile_pickles.GROW,
]
Convert = Callable[[Path, str], dict[str, Any]]


@pytest.fixture(scope="module")
def twins(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("twins")
    hostile.make_twins(root)
    return root


@pytest.fixture
def root(twins, tmp_path) -> Path:
    shutil.copytree(twins, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture(scope="module")
def convert() -> Iterator[Convert]:
    """Convert a source in a directory, in a process of bounded memory and time; gives how that ended."""
    script = Path(__file__).with_name("bounded_converter.py")
    process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout

    def apply(root: Path, source: str) -> dict[str, Any]:
        process.stdin.write(json.dumps([str(root), source, OUTPUT]) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield apply
    process.stdin.close()
    assert process.wait(10) == 0


def snapshot(root: Path) -> dict[str, Any]:
    """All that lies below a directory, without following links; contents of what is small."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and status.st_size < 1 << 20 else None
        found[str(path.relative_to(root))] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return found


class Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: object) -> None:
        return None


@pytest.mark.parametrize("source", [ZIP, LEGACY, SAFETENSORS, "single", SHARDS, DCP])
def test_the_valid_twin_is_converted(root, convert, twins, source):
    assert convert(root, source)["codes"] == []
    tensors = load_file(root / OUTPUT / "model.safetensors")
    assert {name: tensor[0, 0] for name, tensor in tensors.items()} == {f"layers.{i}.weight": i for i in range(3)}
    shutil.rmtree(root / OUTPUT)
    assert snapshot(root).keys() == snapshot(twins).keys()


def test_a_rewritten_archive_is_still_valid(root, convert):
    """So what refuses the others is their fault, not the way in which they were made."""
    hostile_files.rezip(root / ZIP)
    assert convert(root, ZIP)["codes"] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_for_its_reason_and_nothing_happens(root, convert, case: Hostile):
    case.break_it(root)
    before = snapshot(root.parent)
    result = convert(root, case.source)
    assert result.get("codes") == [case.code], result
    assert all(line.isprintable() for line in result["message"].splitlines())
    assert len(result["message"]) < 2000
    assert snapshot(root.parent) == before


@pytest.mark.parametrize("case", [case for case in CASES if case.armed], ids=lambda case: case.name)
def test_what_was_refused_is_dangerous(root, monkeypatch, case: Hostile):
    case.break_it(root)
    path = root / case.source / ".metadata" if (root / case.source).is_dir() else root / case.source
    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            data = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    monkeypatch.chdir(root)
    Unpickler(io.BytesIO(data)).load()
    assert (root / CANARY).is_dir()


def test_cases_are_named_once():
    assert len({case.name for case in CASES}) == len(CASES) >= 12


@pytest.mark.slow
def test_tens_of_thousands_of_tiny_tensors_are_converted(tmp_path, convert):
    (tmp_path / "out").mkdir()
    torch.save({f"{index:05d}": torch.tensor([float(index)]) for index in range(30_000)}, tmp_path / ZIP)
    result = convert(tmp_path, ZIP)
    assert result.get("codes") == [], result
    file = tmp_path / OUTPUT / "model.safetensors"
    assert list(read_header(file)) == [f"{index:05d}" for index in range(30_000)]
    assert np.array_equal(np.fromfile(file, np.float32, offset=file.stat().st_size - 120_000), np.arange(30_000))


@pytest.mark.parametrize("name", [b"caf\xe9.pt", b"\xff\xfe.pt", "Gewichte für π0.pt".encode(), b"-rf.pt", b"a\nb.pt"])
def test_file_names_are_only_names(tmp_path, convert, name):
    (tmp_path / "out").mkdir()
    torch.save({"weight": torch.ones(3)}, tmp_path / ZIP)
    os.rename(tmp_path / ZIP, os.path.join(os.fsencode(tmp_path), name))
    assert convert(tmp_path, os.fsdecode(name)).get("codes") == []
    assert (tmp_path / OUTPUT / "model.safetensors").is_file()


def test_what_only_looks_allowed_is_not(root, monkeypatch):
    """A module below an allowed one is neither imported nor called, by us or by torch."""
    monkeypatch.chdir(root)
    payload = hostile_pickles.call("torch.distributed.tensor.os", "mkdir", CANARY)
    with zipfile.ZipFile(ZIP) as archive:
        content = archive.read("model/data.pkl")
    # the dict of tensors, with one more entry: {..., "extra": <the call>}
    extended = content[:-1] + b"X\x05\0\0\0extra" + payload[2:-1] + b"s."
    hostile_files.rezip(root / ZIP, replaced={"data.pkl": extended})
    before = snapshot(root).keys()
    with pytest.raises(InvalidJob) as error:
        run(prepare(ZIP, OUTPUT))
    assert [problem.code for problem in error.value.problems] == ["unsafe-pickle"]
    with pytest.raises(pickle.UnpicklingError):
        load_torch(Path(ZIP))
    assert snapshot(root).keys() == before
