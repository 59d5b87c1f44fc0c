from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from mlflow_project.tracking.journal import Journal, JournalError
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.sync import sync


def abandoned_journal(directory, uri, name="run", metrics=3):
    """A journal whose owner went away with two runs open and nothing sent."""
    journal = Journal.create(directory, "sft", uri)
    run = Recorder.start(journal, name, experiment="rlinf-isaac")
    child = run.start_run(f"{name}-child")
    for step in range(metrics):
        child.metrics({"loss": float(step)}, step)
    journal.close()
    return journal.path


def test_runs_of_a_dead_process_are_killed_inside_out(tmp_path, store, content):
    torn = abandoned_journal(tmp_path / "journal", store).with_suffix(".files") / "run" / ".table.json.tmp-12-ab"
    torn.parent.mkdir(parents=True)
    torn.touch()
    report = sync(tmp_path / "journal")
    assert not torn.exists(), "its writer is dead"
    assert (report.journals, report.killed, report.pending, report.problems) == (1, 2, 0, {})
    runs = content(store).runs
    assert {run["status"] for run in runs.values()} == {"KILLED"}
    assert "last record" in runs["run-child"]["tags"]["failure.reason"]
    assert len(runs["run-child"]["metrics"]["loss"]) == 3


def test_a_second_sync_has_nothing_to_do(tmp_path, store, content):
    abandoned_journal(tmp_path / "journal", store)
    sync(tmp_path / "journal")
    before = content(store)
    report = sync(tmp_path / "journal")
    assert (report.applied, report.killed) == (0, 0)
    assert content(store) == before


def test_two_syncs_at_once_make_no_duplicates(tmp_path, store, content):
    for number in range(4):
        abandoned_journal(tmp_path / "journal", store, f"run-{number}", metrics=20)
    barrier = threading.Barrier(2)

    def work():
        barrier.wait()
        sync(tmp_path / "journal")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = content(store).runs  # fails on two runs of one name
    assert len(runs) == 8
    assert all(len(runs[f"run-{number}-child"]["metrics"]["loss"]) == 20 for number in range(4))
    assert {run["status"] for run in runs.values()} == {"KILLED"}


def test_a_living_owner_is_left_alone(tmp_path, store):
    journal = Journal.create(tmp_path / "journal", "sft", store)
    Recorder.start(journal, "run", experiment="rlinf-isaac")
    report = sync(tmp_path / "journal")
    assert report.busy == [journal.path]
    assert (report.applied, report.killed) == (0, 0)


def test_a_server_that_is_down_leaves_everything_pending(tmp_path, dead_uri):
    abandoned_journal(tmp_path / "journal", dead_uri, "one")
    abandoned_journal(tmp_path / "journal", dead_uri, "two")
    report = sync(tmp_path / "journal")
    assert report.pending == 2 * (2 + 3 + 4)  # runs, metrics, and for each run its end with a reason
    assert dead_uri in report.problems[dead_uri]


def test_a_journal_killed_before_its_header_is_skipped(tmp_path, store):
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "x.jsonl").write_bytes(b'{"verb": "sf')
    assert sync(tmp_path / "journal").pending == 0


def test_a_stranger_among_the_journals_is_named(tmp_path):
    (tmp_path / "stranger.jsonl").write_text("{}\n")
    with pytest.raises(JournalError, match="stranger"):
        sync(tmp_path)


def test_an_empty_directory_is_fine(tmp_path):
    assert sync(tmp_path / "nothing").journals == 0


WORKER = """
import sys
from pathlib import Path
from mlflow_project.tracking.runs import tracked_run
with tracked_run("main", output=Path("out")) as run:
    with tracked_run("sft", output=Path("out")) as sft:
        step = 0
        while True:
            sft.recorder.metrics({"loss": float(step)}, step)
            print(step, flush=True)
            step += 1
"""


def test_kill_9_then_sync_ends_killed_and_loses_nothing(tmp_path, store, content):
    process = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= 200:
            break
    process.send_signal(signal.SIGKILL)
    last = max([200] + [int(line) for line in process.stdout])
    process.wait()
    sync(tmp_path / "out" / "journal")
    runs = content(store).runs
    assert {name: run["status"] for name, run in runs.items()} == {"main": "KILLED", "sft": "KILLED"}
    steps = [step for step, _, _ in runs["sft"]["metrics"]["loss"]]
    assert steps == list(range(len(steps)))
    assert len(steps) > last
