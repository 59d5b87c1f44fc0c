"""kill -9 while a bundle is being written."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from support import mortal

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.write_bundle import write_bundle


@pytest.fixture(scope="module")
def writer() -> Iterator[subprocess.Popen[str]]:
    with mortal(Path(__file__).with_name("mortal_writer.py")) as process:
        yield process


class TestKilledWriter:
    """kill -9 at any line of the writing code: the name holds a whole bundle or none; the next writer cleans up."""

    @staticmethod
    def start(writer, path: Path, lines: int = 0, megabytes: int = 0, seconds: float = 0) -> int:
        writer.stdin.write(f"{path} {lines} {megabytes} {seconds}\n")
        return int(writer.stdout.readline())

    @staticmethod
    def result(writer) -> tuple[int, int]:
        status, executed, _ = writer.stdout.readline().split()
        return int(status), int(executed)

    @staticmethod
    def lifetime(writer) -> tuple[int, float]:
        status, _, seconds = writer.stdout.readline().split()
        return int(status), float(seconds)

    def kill_points(self, writer, path: Path, count: int) -> list[int]:
        self.start(writer, path)
        status, executed = self.result(writer)
        assert status == 0
        assert executed > 100
        return sorted({1, executed, *random.Random(0).sample(range(2, executed), count - 2)})

    def test_first_write(self, tmp_path, writer):
        path = tmp_path / "checkpoints" / "400"
        torn = 0
        for lines in self.kill_points(writer, path, 30):
            shutil.rmtree(path)
            self.start(writer, path, lines)
            assert self.result(writer)[0] == -signal.SIGKILL
            torn += any(entry.name.startswith(".400.tmp") for entry in path.parent.iterdir())
            if path.exists():
                read_bundle(path)
            write_tiny(path)
            assert [entry.name for entry in path.parent.iterdir()] == ["400"]
        assert torn > 10

    def test_overwriting(self, tmp_path, writer):
        path = tmp_path / "400"
        points = self.kill_points(writer, path, 30)
        new = read_bundle(path).digest
        old = write_tiny(path)
        seen = set()
        for lines in points:
            self.start(writer, path, lines)
            assert self.result(writer)[0] == -signal.SIGKILL
            seen.add(read_bundle(path).digest)
            write_tiny(path)
            assert [entry.name for entry in tmp_path.iterdir()] == ["400"]
        assert seen == {old, new}

    @pytest.mark.parametrize("overwriting", [False, True])
    def test_at_a_hundred_random_moments(self, tmp_path, writer, overwriting):
        """Moments of the clock, which fall into system calls as well: while pages are written, synced, renamed."""
        path, chooser = tmp_path / "400", random.Random(1)
        self.start(writer, path, megabytes=1, seconds=600)
        status, whole = self.lifetime(writer)
        assert status == 0
        new, killed, torn = read_bundle(path).digest, 0, 0
        old = write_tiny(path)
        for _ in range(50):  # of two parameters each
            if not overwriting:
                shutil.rmtree(path, ignore_errors=True)
            self.start(writer, path, megabytes=1, seconds=chooser.uniform(1e-4, whole))
            status, took = self.lifetime(writer)
            whole = took if status == 0 else whole  # another process may have held up the one that was measured
            killed += status == -signal.SIGKILL
            orphans = list(tmp_path.glob(".400.tmp-*"))
            assert len(orphans) <= 1, "every writer removes what the one before it left"
            torn += len(orphans)
            if overwriting or path.exists():
                assert read_bundle(path).digest in ({old, new} if overwriting else {new})
        write_tiny(path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["400"]
        assert killed > 10
        assert torn > 5

    def test_while_the_weights_are_being_written(self, tmp_path, writer):
        path = tmp_path / "400"
        for megabytes in (8, 16, 24, 32):
            pid = self.start(writer, path, megabytes=megabytes)
            with suppress(ProcessLookupError):  # it was faster
                while not any(tmp_path.glob(".400.tmp-*/*model.safetensors*")):
                    os.kill(pid, 0)
                os.kill(pid, signal.SIGKILL)
            assert self.result(writer)[0] in (0, -signal.SIGKILL)
            if path.exists():
                read_bundle(path)
            write_tiny(path)
            assert [entry.name for entry in tmp_path.iterdir()] == ["400"]
            shutil.rmtree(path)


def write_tiny(path: Path) -> str:
    state_dict = {"old": torch.zeros(1)}
    arguments = {"config": {}, "norm_stats": b"{}", "asset_id": "cube", "step": 400, "lineage": {}}
    return write_bundle(path, state_dict=state_dict, overwrite=True, **arguments).digest
