"""Verbs that are killed (SIGKILL) as processes of their own: the same command goes on, and nothing stays behind."""

from __future__ import annotations

import random
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.end_state import faults_of_the_store, leavings
from faults.killer import attack
from faults.race import race
from faults.verbs import End, Job, verbs
from faults.workshop import CASES, Workshop
from safetensors.torch import load_file
from support import SMALL_PRESET

from rlinf_isaac.checkpoint.bundle import read_bundle


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[[Sequence[Job]], list[End]]]:
    with verbs() as function:
        yield function


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary directory of the verbs' own: short, since sockets lie below it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def checkpoint(tmp_path, small_checkpoints) -> dict[str, Any]:
    """One of RLinf's, loose weights, and options."""
    bundle = read_bundle(small_checkpoints / "4")
    step = tmp_path / "exp" / "global_step_4"
    weights, stats = step / "actor" / "model_state_dict" / "full_weights.pt", step / "norm_stats.json"
    weights.parent.mkdir(parents=True)
    torch.save(load_file(bundle.path / "model.safetensors"), weights)
    stats.write_bytes(bundle.norm_stats_bytes)
    return {"step": step, "weights": weights, "stats": stats}


def test_an_output_that_has_its_name_is_recorded_by_the_same_command(start, store, tmp_path, temporary, checkpoint):
    """Killed right after the rename, or while it is being recorded: `convert` in both its forms, and `bundle make`."""
    small = ("--preset", SMALL_PRESET)
    weights, stats = ("--input", checkpoint["weights"]), ("--norm-stats", checkpoint["stats"])
    jobs = {
        "converted": ["convert", *weights, "--output", "converted"],
        "bundles/4": ["convert", *weights, *stats, *small, "--output", "bundles/4"],
        "out/bundles/exp/4": ["bundle", "make", checkpoint["step"], *small, "--output", "out"],
    }
    log = tmp_path / "log"
    for lines, (output, arguments) in zip((1, 600, 1200), jobs.items(), strict=True):
        words = [str(word) for word in arguments]
        job = Job(words, str(tmp_path), {"TMPDIR": str(temporary)}, str(log))
        ends = start([replace(job, kill_after=output, kill_line=lines)])
        written = {path: path.stat().st_mtime_ns for path in Path(output).rglob("*")}
        assert written
        ends += start([job])
        assert [end.status for end in ends] == [-signal.SIGKILL, 0], log.read_text()
        assert log.read_text().count("this command has made it before") == 1
        log.unlink()
        assert {path: path.stat().st_mtime_ns for path in Path(output).rglob("*")} == written
        assert leavings(tmp_path, temporary, [end.session for end in ends]) == []
    assert faults_of_the_store(tmp_path) == []


@pytest.mark.slow
def test_at_random_lines_and_moments(start, temporary):
    """As `tests/faults/killer.py` does with all verbs, hundreds of times: two cheap ones here."""
    shop, chooser = Workshop(temporary, start, ["demos"]), random.Random(0)
    for verb, kills in {"norm_stats": 2, "sync": 1}.items():
        figures = attack(shop, CASES[verb], kills, chooser)
        assert (figures.kills, figures.faults) == (kills, [])


@pytest.mark.slow
@pytest.mark.parametrize("world", ["sqlite"], indirect=True)
def test_of_several_promotions_at_once_one_wins(start, world, tmp_path):
    """Two of one checkpoint and two of another; whoever comes too late is told so in a line."""
    subjects = [world.evaluated("s" * 20)[0] for _ in range(2)] * 2
    options = ["--min-success", "0.3", "--name", world.name, "--output", "out"]
    racers = race(start, [["promote", subject, *options] for subject in subjects], tmp_path)
    printed = "\n".join(racer.output for racer in racers)
    assert "Traceback" not in printed
    assert printed.count(f"Promoted: version 1 of {world.name} is the champion; there was none before.") == 1
    assert (world.versions(), world.aliases().keys()) == (1, {"champion", "candidate"})
    for racer in racers:
        won = "is the champion; there was none before." in racer.output or "and is champion already." in racer.output
        late = "was none and is version 1 now" in racer.output or "refused by champion;" in racer.output
        assert (racer.status, won, late) in ((0, True, False), (3, False, True)), racer.output
    assert faults_of_the_store(tmp_path) == []
