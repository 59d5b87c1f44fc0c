from __future__ import annotations

import shutil
from collections.abc import Generator

import pytest

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.engines.resume import MetricsLog, metrics_log, resume
from rlinf_isaac.ground.events import CheckpointSaved, Event, Metrics, Progress, Resumed


def test_rewind_forgets_what_is_about_to_be_repeated(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    entries = [Metrics(step, {"train/loss": 1 / step}, time=float(step)) for step in (2, 4, 6)]
    for entry in entries:
        log.append(entry)
    with open(log.path, "a") as file:
        file.write('{"step": 8, "ti')  # killed while writing
    assert list(log.rewind(4)) == entries[:2]
    assert list(MetricsLog(log.path).rewind(100)) == entries[:2]
    assert list(MetricsLog(tmp_path / "none.jsonl").rewind(100)) == []


ENTRIES = [Metrics(step, {"x": float(step)}, time=float(step)) for step in (0, 2, 4, 6)]


@pytest.fixture
def output(tmp_path, small_checkpoints):
    """What a training of six steps leaves that was killed after the fourth, and had saved more by then."""
    shutil.copytree(small_checkpoints, tmp_path / "checkpoints")
    for entry in ENTRIES:
        metrics_log(tmp_path).append(entry)
    return tmp_path


def outcome(events: Generator[Event, None, int | None]) -> tuple[list[Event], int | None]:
    told = []
    while True:
        try:
            told.append(next(events))
        except StopIteration as end:
            return told, end.value


def checkpoint(output, step) -> CheckpointSaved:
    path = output / "checkpoints" / str(step)
    return CheckpointSaved(step, path, read_bundle(path).digest)


def test_it_goes_on_from_the_newest_step_with_a_checkpoint_and_a_state(output):
    told, start = outcome(resume(output, "sft", 6, [2, 4, 5]))
    assert start == 4
    assert told == [Resumed("sft", 4, 6), *ENTRIES[:3], checkpoint(output, 2), checkpoint(output, 4)]
    assert list(metrics_log(output).rewind(100)) == ENTRIES[:3]


def test_without_a_state_it_begins_anew_and_measures_its_start_again(output):
    assert outcome(resume(output, "rl", 6, [])) == ([], 0)
    assert metrics_log(output).path.read_text() == ""


def test_a_finished_one_is_told_of_and_left_alone(output):
    told, start = outcome(resume(output, "rl", 6, [6]))
    assert start is None
    assert told == [*ENTRIES, *(checkpoint(output, step) for step in (2, 4, 6)), Progress("rl", 6, 6, "complete")]


def test_another_process_of_a_team_touches_and_tells_nothing(output):
    before = metrics_log(output).path.read_bytes()
    assert outcome(resume(output, "sft", 6, [4], alone=False)) == ([], 4)
    assert metrics_log(output).path.read_bytes() == before


def test_how_a_checkpoint_is_told_of_is_the_engines_choice(output):
    told, _ = outcome(resume(output, "sft", 6, [2], lambda place, step: [Progress(str(place), step, 6)]))
    assert told[-1] == Progress(str(output), 2, 6)
