from __future__ import annotations

import logging
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_project.tracking.cursor import Cursor
from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.state import state_path
from mlflow_project.tracking.uploader import Uploader

SHA = "f" * 64


def record_everything(journal: Journal, scratch: Path) -> None:
    """One operation of every kind, in nested runs."""
    parent = Recorder.start(journal, "sweep", tags={"verb": "eval"}, experiment="rlinf-isaac")
    parent.params({"sft": {"lr": 0.1}})
    child = parent.start_run("step-4")
    child.metrics({"loss": 0.5, "lr": 1e-3}, 1)
    parent.metrics({"sweep/success": 0.1}, 1)
    child.metrics({"loss": 0.25}, 2)
    child.model(SHA, "pi0-tiny-step-4", "output", 4, params={"step": 4}, tags={"checkpoint.uri": "/x"})
    (scratch / "a.txt").write_text("hello")
    child.artifact(scratch / "a.txt", "deep/b.txt")
    child.metrics({"eval/success_once": 0.5}, 4, model=SHA, dataset=("stack2", "d" * 32))
    child.end("FINISHED")
    other = parent.start_run("step-8")
    other.model(SHA, "pi0-tiny-step-4", "input", 4)
    other.end("FAILED", "no reason")
    parent.tags({"mlflow.note.content": f"[run](#/{{{{run:{child.run}}}}})"})
    parent.experiment_tag("view", "{{experiment}}")
    parent.end("FINISHED")


@pytest.fixture
def journal(tmp_path, store) -> Iterator[Journal]:
    journal = Journal.create(tmp_path / "journal", "eval", store)
    record_everything(journal, tmp_path)
    yield journal
    journal.close()


def test_everything_arrives(journal, store, content):
    steps = list(Cursor(journal.path, store).advance())
    found = content(store)
    child, parent = found.runs["step-4"], found.runs["sweep"]
    assert parent["params"] == {"cfg/sft/lr": "0.1"}
    assert parent["tags"]["verb"] == "eval"
    assert child["parent"] == "sweep"
    assert [(step, value) for step, _, value in child["metrics"]["loss"]] == [(1, 0.5), (2, 0.25)]
    assert child["artifacts"] == [("deep/b.txt", 5)]
    assert child["model outputs"] == [("pi0-tiny-step-4", 4)]
    assert found.runs["step-8"]["model inputs"] == ["pi0-tiny-step-4"]
    assert [run["status"] for run in found.runs.values()].count("FINISHED") == 2
    assert found.runs["step-8"]["tags"]["failure.reason"] == "no reason"
    assert parent["tags"]["mlflow.note.content"] == "[run](#/<step-4>)"
    (model,) = found.models
    assert model["status"] == "READY"
    assert model["metrics"] == [("eval/success_once", 4, 0.5, "d" * 32)]
    assert max(steps) > 1, "metrics of several operations travel together"


def test_applying_again_from_the_start_changes_nothing(journal, store, content):
    list(Cursor(journal.path, store).advance())
    before = content(store)
    state_path(journal.path).unlink()
    list(Cursor(journal.path, store).advance())
    assert content(store) == before


def test_a_crash_after_any_step_before_its_cursor_is_saved_changes_nothing(
    journal, store, empty_database, tmp_path, content
):
    list(Cursor(journal.path, store).advance())
    expected = content(store)
    state_path(journal.path).unlink()
    shutil.copy(empty_database, tmp_path / "second.db")
    second = f"sqlite:///{tmp_path / 'second.db'}"
    state = state_path(journal.path, second)
    while True:
        saved = state.read_bytes() if state.exists() else None
        if next(Cursor(journal.path, second).advance(), None) is None:
            break
        # The step's effect is in MLflow, its cursor is not: the process died in between.
        if saved is None:
            state.unlink()
        else:
            state.write_bytes(saved)
        next(Cursor(journal.path, second).advance())
    assert content(second) == expected


def test_what_mlflow_refuses_does_not_hold_up_the_rest(tmp_path, store, content):
    journal = Journal.create(tmp_path / "journal", "sft", store)
    run = Recorder.start(journal, "run", experiment="rlinf-isaac")
    run.params({"lr": 1})
    run.metrics({"loss": 1.0}, 1)
    run.params({"lr": 2})
    run.artifact(tmp_path / "missing.txt")
    run.metrics({"loss": 2.0}, 2)
    run.end("FINISHED")
    cursor = Cursor(journal.path, store)
    list(cursor.advance())
    found = content(store).runs["run"]
    assert found["params"] == {"cfg/lr": "1"}
    assert len(found["metrics"]["loss"]) == 2
    assert found["status"] == "FINISHED"
    assert len(cursor.state.refused) == 2
    assert any("missing.txt" in reason for reason in cursor.state.refused)


def test_the_thread_follows_the_journal_and_drains_it(tmp_path, store, content):
    journal = Journal.create(tmp_path / "journal", "sft", store)
    uploader = Uploader(journal, store)
    record_everything(journal, tmp_path)
    outcome = uploader.close(limit_s=60)
    assert (outcome.pending, outcome.problem) == (0, None)
    assert content(store).runs["sweep"]["status"] == "FINISHED"
    assert Journal.take_over(journal.path) is not None, "the lock is free"


def test_without_a_server_nothing_blocks_and_the_rest_is_counted(tmp_path, dead_uri, caplog):
    journal = Journal.create(tmp_path / "journal", "sft", dead_uri)
    uploader = Uploader(journal, dead_uri)
    run = Recorder.start(journal, "run")
    for step in range(100):
        run.metrics({"loss": 1.0}, step)
    run.end("FINISHED")
    with caplog.at_level(logging.WARNING):
        outcome = uploader.close(limit_s=0.5)
    assert outcome.pending == 102
    assert outcome.problem


def test_a_server_that_takes_the_connection_and_says_nothing_does_not_block(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        uri = f"http://127.0.0.1:{mute.getsockname()[1]}"
        journal = Journal.create(tmp_path / "journal", "sft", uri)
        uploader = Uploader(journal, uri)
        Recorder.start(journal, "run").end("FINISHED")
        outcome = uploader.close(limit_s=0.5)
    assert outcome.pending == 2


def test_metrics_of_a_burst_go_in_few_requests(tmp_path, store, monkeypatch):
    from mlflow import MlflowClient

    journal = Journal.create(tmp_path / "journal", "sft", store)
    run = Recorder.start(journal, "run", experiment="rlinf-isaac")
    for step in range(500):
        run.metrics({"train/loss": 1.0 / (step + 1), "train/lr": 1e-3}, step)
    calls = []
    log_batch = MlflowClient.log_batch
    monkeypatch.setattr(MlflowClient, "log_batch", lambda *a, **k: (calls.append(1), log_batch(*a, **k)))
    list(Cursor(journal.path, store).advance())
    assert len(calls) == 1


def test_a_damaged_journal_is_reported_and_does_not_stop_the_work(tmp_path, store, caplog):
    journal = Journal.create(tmp_path / "journal", "sft", store)
    with open(journal.path, "ab") as file:
        file.write(b"damage\n")
    uploader = Uploader(journal, store)
    outcome = uploader.close(limit_s=60)
    assert outcome.pending == 1
    assert "damage" in outcome.problem or "not an operation" in outcome.problem
    assert not any(thread.name == "mlflow-uploader" for thread in threading.enumerate())
