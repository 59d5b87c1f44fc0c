"""Which checkpoints a training leaves on disk, also when it is killed while it removes some."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import mortal

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.checkpoint.removal import in_use
from rlinf_isaac.engines.local.training.retention import Retention, scores_of
from rlinf_isaac.ground.events import CheckpointRemoved, Metrics

SCRIPT = Path(__file__).with_name("mortal_retention.py")


def job_in(directory: Path, checkpoints: Path) -> Path:
    """A copy of the job directory with the steps 2, 4 and 6, with adapters of each."""
    shutil.copytree(checkpoints, directory / "checkpoints", copy_function=os.link)
    for step in (2, 4, 6):
        (directory / "adapters" / str(step)).mkdir(parents=True)
        (directory / "adapters" / str(step) / "adapter_model.safetensors").write_bytes(b"a" * step)
    return directory


@pytest.fixture
def job(tmp_path, small_checkpoints) -> Path:
    return job_in(tmp_path / "job", small_checkpoints)


def left(job: Path) -> list[int]:
    return list(find_bundles(job / "checkpoints"))


def recorded(job: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (job / "removed.jsonl").read_text().splitlines()]


def test_what_is_not_kept_goes_unless_somebody_needs_it_or_works_with_it(job):
    asked, size = [], sum(file.stat().st_size for file in (job / "checkpoints/2").rglob("*") if file.is_file())
    digests = {step: read_bundle(path).digest for step, path in find_bundles(job / "checkpoints").items()}
    answer: dict[str, str] | None = None

    def guardian(bundles):
        asked.append([bundle.step for bundle in bundles])
        return answer

    retention = Retention(job, ("adapters",), guardian)
    assert list(retention.keep({6})) == []
    assert left(job) == [2, 4, 6], "not known who needs them"
    answer = {digests[2]: "registered"}
    with in_use([job / "checkpoints/4", job / "no-bundle"]):
        assert list(retention.keep({6})) == []
        assert left(job) == [2, 4, 6]
    assert [event.step for event in retention.keep({6})] == [4]
    assert (left(job), sorted(os.listdir(job / "adapters"))) == ([2, 6], ["2", "6"])
    answer = {}
    removed = CheckpointRemoved(2, job / "checkpoints/2", digests[2], size + 2)
    assert list(retention.keep({6})) == [removed]
    assert asked == [[2, 4], [2], [2, 4], [2]]
    assert list(retention.keep({6})) == []
    assert [event.step for event in Retention(job, ("adapters",), None).begin()] == [4, 2], "told again"
    read_bundle(job / "checkpoints/6")


@pytest.fixture(scope="module")
def remove() -> Iterator:
    with mortal(SCRIPT) as process:

        def run(output: Path, line: int) -> tuple[int, int]:
            order = {"output": str(output), "kept": [6], "line": line}
            process.stdin.write(json.dumps(order) + "\n")
            return tuple(json.loads(process.stdout.readline()))

        yield run


def test_a_removal_that_is_killed_at_any_line_is_completed(tmp_path, small_checkpoints, remove):
    status, lines = remove(job_in(tmp_path / "whole", small_checkpoints), 0)
    assert (status, lines > 40) == (0, True)
    for line in range(1, lines, 2):
        job = job_in(tmp_path / str(line), small_checkpoints)
        assert remove(job, line)[0] == -signal.SIGKILL
        for path in find_bundles(job / "checkpoints").values():
            read_bundle(path)  # whole, every byte of it
        retention = Retention(job, ("adapters",), None)
        told = [event.step for event in (*retention.begin(), *retention.keep({6}))]
        assert sorted(told) == [2, 4], line
        assert (left(job), recorded(job)) == ([6], [2, 4]), line
        assert [path.name for root in ("checkpoints", "adapters") for path in (job / root).iterdir()] == ["6", "6"], (
            line
        )


def test_success_and_loss_are_not_compared():
    entries = [Metrics(2, {"val/loss": 0.5}), Metrics(4, {"val/loss": 0.25, "train/loss": 9.0})]
    assert scores_of(entries) == {2: -0.5, 4: -0.25}
    assert scores_of([*entries, Metrics(2, {"heldout/success_once": 0.75})]) == {2: 0.75}
