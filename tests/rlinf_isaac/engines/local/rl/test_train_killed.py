"""kill -9 at any moment; the same job goes on and ends with the same weights and metrics."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import SMALL_RL, mortal

from rlinf_isaac.checkpoint.bundle import read_bundle

OVERRIDES = [*SMALL_RL, "rl.iterations=4", "rl.save_interval=2", "rl.eval_interval=3", "rl.epochs=1"]


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    with mortal(Path(__file__).with_name("mortal_trainer.py")) as process:
        yield process


class Outcome(NamedTuple):
    status: int
    lines: int
    seconds: float


@pytest.fixture
def train(process, small_checkpoints, tmp_path):
    """Train in a directory until the end, or until it dies after `seconds`, or at line `lines` of the writing code."""

    def run(output: str, *overrides: str, seconds: float = 0, lines: int = 0) -> Outcome:
        order = {"checkpoint": str(small_checkpoints / "6"), "output": str(tmp_path / output)}
        order |= {"overrides": [*OVERRIDES, *overrides], "seconds": seconds, "lines": lines}
        process.stdin.write(json.dumps(order) + "\n")
        status, executed, lived = process.stdout.readline().split()
        return Outcome(int(status), int(executed), float(lived))

    return run


def result_of(output: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Digests of all checkpoints by step, and all metrics but those of the clock."""
    metrics = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    for entry in metrics:
        del entry["time"]
        entry["values"] = {key: value for key, value in entry["values"].items() if not key.startswith("time/")}
    digests = {path.name: read_bundle(path).digest for path in (output / "checkpoints").glob("[0-9]*")}
    return digests, metrics


@pytest.mark.slow
def test_killed_at_ten_random_moments(train, tmp_path):
    """Of the clock, from the first line to the last: in rollouts, updates, evaluations, while files are written."""
    whole = train("whole", seconds=600)
    assert whole.status == 0
    expected = result_of(tmp_path / "whole")
    assert set(expected[0]) == {"2", "4"}
    chooser = random.Random(0)
    killed = 0
    for number in range(10):
        killed += train(f"cut-{number}", seconds=chooser.uniform(0.02, 0.98) * whole.seconds).status == -signal.SIGKILL
        assert train(f"cut-{number}").status == 0
        assert result_of(tmp_path / f"cut-{number}") == expected
        assert not list((tmp_path / f"cut-{number}" / "checkpoints").glob(".*")), "what the killed one left is gone"
    assert killed >= 5, "a run may be much faster than the first one, but not most"


def test_killed_again_and_again_while_it_writes(train, tmp_path):
    """Checkpoints, the optimiser's state, metrics: every run dies at a line of that code, and the next goes on."""
    whole = train("whole")
    assert (whole.status, whole.lines > 1000) == (0, True)
    chooser = random.Random(0)
    for number in range(3):
        outcome = train("cut", lines=chooser.randrange(whole.lines // 8, whole.lines // 3))
        assert outcome.status == -signal.SIGKILL or number > 0, "a later one may have less to do"
    assert train("cut").status == 0
    assert result_of(tmp_path / "cut") == result_of(tmp_path / "whole")


GOES_BACK = ["rl.iterations=5", "rl.save_interval=1", "rl.eval_interval=2", "rl.warmup_iterations=2"]
"""The third iteration ruins the policy, the fourth goes on from checkpoint 2 with a learning rate of 1e-4."""
GOES_BACK += ["rl.lr=1e30", "rl.rollback_lr_factor=1e-34", "rl.reward=shaped"]


def course_of(output: Path) -> list[dict[str, Any]]:
    """All lines of the training's course but for the clock."""
    found = [json.loads(line) for line in (output / "course.jsonl").read_text().splitlines()]
    return [{key: value for key, value in each.items() if key != "seconds"} for each in found]


def test_killed_around_a_roll_back(train, tmp_path):
    whole = train("whole", *GOES_BACK)
    assert whole.status == 0
    expected = result_of(tmp_path / "whole"), course_of(tmp_path / "whole")
    assert set(expected[0][0]) == {"1", "2", "4", "5"}
    assert [(each["number"], each["back_to"]) for each in expected[1] if each["back_to"] is not None] == [(3, 2)]
    chooser = random.Random(0)
    for number in range(2):
        killed = train(f"cut-{number}", *GOES_BACK, lines=chooser.randrange(whole.lines // 3, whole.lines))
        assert killed.status == -signal.SIGKILL
        assert train(f"cut-{number}", *GOES_BACK).status == 0
        assert (result_of(tmp_path / f"cut-{number}"), course_of(tmp_path / f"cut-{number}")) == expected


@pytest.mark.slow
def test_killed_with_workers(train, tmp_path):
    """The workers end with their parent: the report comes only then. Once they are idle, once they play or learn."""
    two = "rl.workers=2"
    whole = train("whole", two)
    assert whole.status == 0
    assert train("idle", two, lines=whole.lines // 2).status == -signal.SIGKILL
    train("busy", two, seconds=0.5 * whole.seconds)
    for output in ("idle", "busy"):
        assert train(output, two).status == 0
        assert result_of(tmp_path / output) == result_of(tmp_path / "whole")
