"""What a log file is told of the progress. (Bars on a terminal are rich's.)"""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mlflow_project.tracking.live import read_life
from mlflow_project.tracking.progress import ProgressView
from mlflow_project.tracking.runs import tracked_run
from mlflow_project.tracking.terminal import SafeConsole
from rlinf_isaac.ground.events import CheckpointSaved, Event, Metrics, Progress, Resumed


class Log:
    """A view without a terminal, with a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 0.0
        self.console = SafeConsole(file=io.StringIO(), width=80)
        self.view = ProgressView(self.console, clock=lambda: self.now)

    def tell(self, now: float, *told: Event) -> list[str]:
        """The lines that are printed of these events at this time."""
        self.now = now
        before = len(self.lines())
        for event in told:
            self.view.show(event) if isinstance(event, Progress) else self.view.note(event)
        return self.lines()[before:]

    def beat(self, now: float) -> list[str]:
        self.now = now
        before = len(self.lines())
        self.view.beat()
        return self.lines()[before:]

    def lines(self) -> list[str]:
        return self.console.file.getvalue().splitlines()


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_line_at_each_tenth_with_what_a_curve_shows(log):
    assert log.tell(7, Progress("sft", 1, 1200, "loss 2.1")) == ["sft 1/1200  0 %  loss 2.1"]
    assert log.tell(8, Metrics(20, {"train/loss": 0.44528, "train/learning_rate": 1e-3})) == []
    assert log.tell(9, CheckpointSaved(400, Path("400"), "0")) == []
    assert log.tell(17, Progress("sft", 81, 1200, "loss 0.3")) == [], "not a tenth, not a minute"
    assert log.tell(67, Progress("sft", 481, 1200, "loss 0.3")) == [
        "sft 481/1200  40 %  loss 0.4453  lr 1.0e-3  8.0 it/s  eta 1:30  saved 400"
    ]
    assert log.tell(157, Progress("sft", 1200, 1200, "loss 0.3")) == [
        "sft 1200/1200  100 %  loss 0.4453  lr 1.0e-3  saved 400"
    ]


def test_a_line_each_minute_where_a_tenth_takes_an_hour(log):
    printed = [log.tell(10 * step, Progress("sft", step, 100_000)) for step in range(1, 31)]
    assert [step for step, lines in enumerate(printed, start=1) if lines] == [1, 7, 13, 19, 25]
    assert printed[24] == ["sft 25/100000  0 %  10.0 s/it  eta 11 d 13:42"]


def test_a_minute_of_silence_is_said(log):
    assert log.beat(59) == []
    assert log.beat(61) == ["preparing for 1:01"]
    log.tell(70, Progress("rl", 1, 4, "3 of 8 episodes, 0.1/s"))
    assert log.beat(100) == []
    assert log.beat(135) == ["rl 1/4  25 %  3 of 8 episodes, 0.1/s  (no news for 1:05)"]
    assert log.beat(140) == [], "it was said five seconds ago"


def test_what_was_there_before_took_no_time(log):
    assert log.tell(0, Resumed("sft", 800, 1000)) == ["sft resumes after step 800 of 1000"]
    log.tell(1, Progress("sft", 801, 1000))
    assert log.tell(11, Progress("sft", 901, 1000)) == ["sft 901/1000  90 %  10.0 it/s  eta 0:10"]


def test_each_label_has_a_pace_of_its_own(log):
    log.tell(0, Progress("eval 6", 0, 10, "", "ep"))
    log.tell(50, Progress("eval 8", 0, 10, "", "ep"))
    assert log.tell(60, Progress("eval 8", 5, 10, "4 of 5 solved", "ep")) == [
        "eval 8 5/10  50 %  4 of 5 solved  2.0 s/ep  eta 0:10"
    ]


def test_bytes(log):
    log.tell(0, Progress("convert", 0, 7_000_000_000, unit="B"))
    assert log.tell(10, Progress("convert", 3_500_000_000, 7_000_000_000, unit="B")) == [
        "convert 3.5 GB/7.0 GB  50 %  350.0 MB/s  eta 0:10"
    ]


def test_nothing_to_do(log):
    assert log.tell(0, Progress("sft", 0, 0)) == ["sft 0/0  100 %"]


def test_a_long_note_stays_on_its_line(log):
    assert log.tell(0, Progress("x", 1, 1, "long " * 100 + "note")) == [f"x 1/1  100 %  {'long ' * 100}note"]


def test_a_tracked_run_leaves_a_sign_of_life(store, log, capsys):
    """Also where the terminal has bars, and no lines."""
    with tracked_run("sft", output=Path("out")) as run:
        with ProgressView(SafeConsole(file=io.StringIO(), force_terminal=True)) as view:
            view.show(Progress("sft", 3, 10, "loss 1"))
        journal = run.recorder.journal.path
        life = read_life(journal)
        assert (life.ended, [(work.label, work.done, work.total) for work in life.work]) == (False, [("sft", 3, 10)])
        assert life.lines[-1].endswith("sft 3/10  30 %  loss 1")
    assert read_life(journal).ended
