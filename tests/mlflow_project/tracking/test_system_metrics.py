from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mlflow_project.tracking import system_metrics
from mlflow_project.tracking.journal import Journal, read_header, read_operations
from mlflow_project.tracking.operations import LogMetrics
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.runs import tracked_run
from mlflow_project.tracking.system_metrics import SystemMetrics

CPU = "system/cpu_utilization_percentage"


class Watched(Journal):
    """A real journal that says when it has samples of so many runs."""

    def wait_for(self, enough) -> list[LogMetrics]:
        while not enough(found := logged(self.path)):
            self.written.wait(60)
            self.written.clear()
        return found


@pytest.fixture
def journal(tmp_path) -> Watched:
    journal = Watched.create(tmp_path, "sft", "sqlite:///x")
    journal.written = threading.Event()
    journal.on_append = journal.written.set
    yield journal
    journal.close()


def logged(path: Path) -> list[LogMetrics]:
    operations, _ = read_operations(path, read_header(path)[1])
    return [each for each, _ in operations if isinstance(each, LogMetrics)]


def test_runs_that_are_open_get_the_same_samples_and_ended_ones_none(journal):
    outer = Recorder.start(journal, "main")
    inner, ended = outer.start_run("sft"), outer.start_run("demos")
    ended.end("FINISHED")
    metrics = SystemMetrics(journal, system_metrics._monitors(), patience_s=0, interval_s=0.01, samples=2)
    found = journal.wait_for(lambda rows: sum(row.run == inner.run for row in rows) >= 3)
    metrics.stop()
    assert not metrics._thread.is_alive()
    by_run = {run: [row for row in found if row.run == run] for run in (outer.run, inner.run, ended.run)}
    assert by_run[ended.run] == []
    for run in (outer.run, inner.run):
        assert [row.step for row in by_run[run]] == list(range(len(by_run[run])))
    first, second = by_run[outer.run][0], by_run[inner.run][0]
    assert (first.time_ms, first.values) == (second.time_ms, second.values)
    assert 0 <= first.values[CPU] <= 100
    assert {"system/system_memory_usage_megabytes", "system/disk_available_megabytes"} <= set(first.values)


def test_a_run_gets_its_beginning_as_soon_as_it_is_old_enough(journal):
    """Samples are held until then, so the first line in the journal brings several steps at once."""
    run = Recorder.start(journal, "sft").run
    metrics = SystemMetrics(journal, system_metrics._monitors(), patience_s=1e9, interval_s=0.01)
    held = metrics._held
    while len(held[run]) < 3:
        threading.Event().wait(0.01)
    assert logged(journal.path) == []
    metrics._patience_s = 0
    found = journal.wait_for(lambda rows: len(rows) >= 4)
    metrics.stop()
    assert [row.step for row in found] == list(range(len(found)))
    assert [row.time_ms for row in found] == sorted(row.time_ms for row in found)


def test_a_monitor_that_breaks_ends_only_the_measuring(journal):
    class Broken:
        def collect_metrics(self):
            raise RuntimeError("driver gone")

    run = Recorder.start(journal, "sft")
    metrics = SystemMetrics(journal, [Broken()], patience_s=0, interval_s=0.01)
    metrics._thread.join()
    run.metrics({"train/loss": 1.0})
    assert [row.values for row in logged(journal.path)] == [{"train/loss": 1.0}]


@pytest.mark.parametrize(("said", "expected"), [("true", True), ("false", False), (None, False)])
def test_mlflows_variables_decide(store, content, monkeypatch, said, expected):
    if said:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", said)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_NODE_ID", "node_1")
    with tracked_run("sft", output=Path("out")) as run:
        threads = [each for each in threading.enumerate() if each.name == "system-metrics"]
        assert bool(threads) is (said != "false")
        while expected and not logged(run.recorder.journal.path):
            threading.Event().wait(0.01)
    assert not any(each.is_alive() for each in threads)
    metrics = content(store).runs["sft"]["metrics"]
    assert ("system/node_1/cpu_utilization_percentage" in metrics) is expected
