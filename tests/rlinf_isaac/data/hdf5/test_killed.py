"""An import that is killed (SIGKILL) anywhere leaves no dataset or a whole one, and the next one makes it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from corpus.hdf5_demos import isaaclab
from support import mortal

from rlinf_isaac.data.lerobot.reader import LeRobotDataset

pytest.importorskip("h5py")
KILLS = 8


def test_killed_anywhere(tmp_path):
    path = isaaclab(tmp_path / "gen.hdf5", (3, 4))
    with mortal(Path(__file__).with_name("mortal_importer.py")) as process:

        def run(root: Path, lines: int) -> list[int]:
            process.stdin.write(f"{path} {root} {lines}\n")
            return [int(word) for word in process.stdout.readline().split()]

        whole = tmp_path / "whole" / "set"  # a directory of its own: lines are executed for each neighbour
        status, lines = run(whole, 0)
        assert (status, lines > KILLS) == (0, True)
        digest, there = LeRobotDataset(whole).digest, 0
        for number in range(KILLS):
            root = tmp_path / str(number) / "set"
            assert run(root, 1 + number * (lines - 2) // (KILLS - 1))[0] == -signal.SIGKILL
            there += root.exists()
            if root.exists():
                assert LeRobotDataset(root).digest == digest
            assert run(root, 0)[0] == 0
            assert LeRobotDataset(root).digest == digest
            assert [each.name for each in root.parent.iterdir() if each.name.startswith(f".{root.name}")] == []
        assert 0 < there < KILLS
