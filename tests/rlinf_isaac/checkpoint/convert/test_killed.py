"""Converters that are ended at any moment: a whole output or none, and nothing else after the next one."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support import mortal

from rlinf_isaac.checkpoint.convert import prepare, read_record, run
from rlinf_isaac.ground.digest import file_digest


@pytest.fixture(scope="module")
def converter() -> Iterator[subprocess.Popen[str]]:
    with mortal(Path(__file__).with_name("mortal_converter.py")) as process:
        yield process


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "weights.pt"
    torch.save({f"w{number}": torch.full((2**17,), float(number)) for number in range(16)}, path)
    return path


def end_after(converter, source: Path, output: Path, number: int, seconds: float) -> tuple[int, float]:
    converter.stdin.write(f"{source} {output} {int(number)} {seconds}\n")
    status, lived = converter.stdout.readline().split()
    return int(status), float(lived)


def assert_whole(output: Path) -> None:
    record = read_record(output)
    assert {path.name for path in output.iterdir()} == {"conversion.json", *record["output"]}
    assert all(file_digest(output / name) == digest for name, digest in record["output"].items())


@pytest.mark.parametrize("overwriting", [False, True])
def test_killed_at_fifty_random_moments(tmp_path, converter, source, overwriting):
    """A hundred with both parameters."""
    output, chooser = tmp_path / "out", random.Random(overwriting)
    status, whole = end_after(converter, source, output, signal.SIGKILL, 600)
    assert status == 0
    killed = torn = 0
    for _ in range(50):
        if not overwriting:
            shutil.rmtree(output, ignore_errors=True)
        status, took = end_after(converter, source, output, signal.SIGKILL, chooser.uniform(1e-3, whole))
        whole = took if status == 0 else whole  # another process may have held up the one that was measured
        killed += status == -signal.SIGKILL
        orphans = list(tmp_path.glob(".out.tmp-*"))
        assert len(orphans) <= 1, "every converter removes what the one before it left"
        torn += len(orphans)
        if overwriting or output.exists():
            assert_whole(output)
    run(prepare(source, output, overwrite=True), verify=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    assert_whole(output)
    assert killed > 20
    assert torn > 10


def test_interrupted_at_random_moments(tmp_path, converter, source):
    output, chooser = tmp_path / "out", random.Random(2)
    _, whole = end_after(converter, source, output, signal.SIGINT, 600)
    interrupted = 0
    for _ in range(20):
        shutil.rmtree(output, ignore_errors=True)
        status, took = end_after(converter, source, output, signal.SIGINT, chooser.uniform(whole / 10, whole))
        whole = took if status == 0 else whole
        assert status in (0, 130)
        interrupted += status == 130
        # In the instant in which its claim is made or given up, an interrupt leaves the empty file that stands for it.
        assert {entry.name for entry in tmp_path.iterdir()} <= {"out", ".out.lock"}
        if output.exists():
            assert_whole(output)
    run(prepare(source, output, overwrite=True), verify=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    assert interrupted > 5
