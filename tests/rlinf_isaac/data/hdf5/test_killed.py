"""An import that is killed (SIGKILL) anywhere leaves no dataset or a whole one, and the next one makes it. So does an
import of a file that is damaged anywhere: it leaves none, or a whole one."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from corpus.hdf5_demos import isaaclab
from support import mortal

from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.validate.dataset import validate_dataset

pytest.importorskip("h5py")
KILLS = 8
DAMAGED = 30


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


def test_damaged_anywhere(tmp_path):
    """Bytes outside the arrays' own data, which say what is where."""
    h5py = pytest.importorskip("h5py")
    path, chooser, refused = isaaclab(tmp_path / "gen.hdf5", (2, 3), size=4), random.Random(0), 0
    whole, places = path.read_bytes(), set(range(path.stat().st_size))
    with h5py.File(path) as file:
        observations = [each for demo in file["data"].values() for each in demo["obs"].values()]
        for array in (each for each in observations if hasattr(each, "chunks")):
            for number in range(array.id.get_num_chunks()):
                chunk = array.id.get_chunk_info(number)
                places -= set(range(chunk.byte_offset, chunk.byte_offset + chunk.size))
    used = [place for place in sorted(places) if whole[place]]
    with mortal(Path(__file__).with_name("mortal_importer.py")) as process:
        for number in range(DAMAGED):
            data = bytearray(whole)
            for _ in range(chooser.choice((1, 2, 8))):
                data[chooser.choice(used)] = chooser.choice((0, 255, chooser.randrange(256)))
            path.write_bytes(data)
            root = tmp_path / str(number) / "set"
            process.stdin.write(f"{path} {root} 0\n")
            status = int(process.stdout.readline().split()[0])
            assert status in (0, 2), number
            refused += status == 2
            assert root.exists() == (status == 0)
            assert status or validate_dataset(root, full=True) == []
    assert 0 < refused < DAMAGED
