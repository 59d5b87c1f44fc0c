"""What a log file is told of the progress. (Bars on a terminal are rich's.)"""

from __future__ import annotations

import io

from mlflow_project.tracking.progress import ProgressView
from mlflow_project.tracking.terminal import SafeConsole
from rlinf_isaac.ground.events import Progress


def lines_of(shown: list[tuple[float, Progress]]) -> list[str]:
    """What is printed of each (seconds on the clock, progress)."""
    times = iter([seconds for seconds, _ in shown])
    console = SafeConsole(file=io.StringIO(), width=200)
    with ProgressView(console, clock=lambda: next(times)) as view:
        for _, progress in shown:
            view.show(progress)
    return console.file.getvalue().splitlines()


def test_one_line_per_tenth_with_the_time_that_is_left():
    shown = [(7.0, Progress("sft", 1, 1000, "loss 2"))]
    shown += [(7.0 + (done - 1) / 2, Progress("sft", done, 1000, "loss 1")) for done in (101, 501, 901, 1000)]
    assert lines_of(shown) == [
        "sft          1/1000  loss 2",
        "sft          101/1000  loss 1  7 min left",
        "sft          501/1000  loss 1  4 min left",
        "sft          901/1000  loss 1  50 s left",
        "sft          1000/1000  loss 1",
    ]


def test_what_was_there_before_took_no_time():
    shown = [(0.0, Progress("sft", 800, 1000)), (10.0, Progress("sft", 900, 1000)), (20.0, Progress("sft", 1000, 1000))]
    assert lines_of(shown) == ["sft          800/1000", "sft          900/1000  10 s left", "sft          1000/1000"]


def test_each_label_has_a_pace_of_its_own():
    shown = [(0.0, Progress("a", 0, 10)), (50.0, Progress("b", 0, 10)), (60.0, Progress("b", 5, 10))]
    assert lines_of(shown)[-1] == "b            5/10  10 s left"


def test_nothing_to_do():
    assert lines_of([(0.0, Progress("sft", 0, 0))]) == ["sft          0/0"]


def test_a_long_note_stays_on_its_line():
    assert lines_of([(0.0, Progress("sft", 1, 1, "long " * 100 + "note"))]) == [
        f"sft          1/1  {'long ' * 100}note"
    ]
