"""What a journal's way into a store does when a store refuses, is another one, or lets no large file through."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import proxy
from faults.proxy import Proxy
from mlflow import MlflowClient

from mlflow_project.tracking.answers import Unreachable, told
from mlflow_project.tracking.cursor import Cursor
from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.operations import SetTags
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.replica import RUN_TAG, OtherStore
from mlflow_project.tracking.state import state_path
from mlflow_project.tracking.sync import sync


@pytest.fixture
def second_store(empty_database, tmp_path) -> str:
    """Another database, in which the experiment has the same id."""
    shutil.copy(empty_database, tmp_path / "second.db")
    uri = f"sqlite:///{tmp_path / 'second.db'}"
    MlflowClient(uri).create_experiment("rlinf-isaac")
    return uri


@pytest.fixture
def journal(tmp_path, store) -> Iterator[Journal]:
    journal = Journal.create(tmp_path / "journal", "sft", store)
    yield journal
    journal.close()


def begin(journal: Journal) -> Recorder:
    return Recorder.start(journal, "run", experiment="rlinf-isaac")


def replace(store: str, by: str) -> None:
    """Let another database stand where this one was."""
    shutil.copy(by.removeprefix("sqlite:///"), store.removeprefix("sqlite:///"))


def test_a_store_that_is_another_one_takes_nothing_and_loses_nothing(journal, store, second_store, tmp_path, content):
    run = begin(journal)
    list(Cursor(journal.path, store).advance())
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "first.db")
    replace(store, second_store)
    run.metrics({"loss": 1.0}, 1)
    run.start_run("child")
    (tmp_path / "a.txt").write_text("hello")
    run.artifact(tmp_path / "a.txt")
    cursor = Cursor(journal.path, store)
    with pytest.raises(OtherStore):
        list(cursor.advance())
    assert (cursor.pending(), cursor.state.refused) == (3, [])
    assert content(store).runs == {}
    shutil.copy(tmp_path / "first.db", tmp_path / "mlflow.db")
    list(Cursor(journal.path, store).advance())
    assert set(content(store).runs) == {"run", "child"}


def test_again_brings_a_journal_whole_into_the_store_that_came_after(journal, store, second_store, content):
    run = begin(journal)
    run.metrics({"loss": 1.0}, 1)
    list(Cursor(journal.path, store).advance())
    replace(store, second_store)
    run.end("FINISHED")
    list(Cursor(journal.path, store, again=True).advance())
    assert content(store).runs["run"]["metrics"].keys() == {"loss"}
    assert Cursor(journal.path, store).pending() == 0


def test_another_store_gets_a_journal_that_its_own_has_in_full(journal, store, second_store, content):
    begin(journal).end("FINISHED")
    journal.close()
    assert sync(journal.path.parent).applied == 2
    assert sync(journal.path.parent, tracking_uri=second_store).applied == 2
    assert sync(journal.path.parent, tracking_uri=second_store).applied == 0
    assert content(second_store) == content(store)


def test_what_was_refused_is_told_each_time_and_can_be_tried_again(journal, store, tmp_path, content):
    run = begin(journal)
    run.artifact(tmp_path / "late.txt")
    run.end("FINISHED")
    journal.close()
    report = sync(journal.path.parent)
    assert (report.pending, len(report.refused), report.complete) == (0, 1, False)
    assert sync(journal.path.parent).refused == report.refused
    assert len(sync(journal.path.parent, again=True).refused) == 1
    (tmp_path / "late.txt").write_text("here")
    assert sync(journal.path.parent, again=True).complete
    assert content(store).runs["run"]["artifacts"] == [("late.txt", 4)]
    assert sync(journal.path.parent).complete


def test_what_an_earlier_release_had_refused_is_replayed_from_the_start(journal, store, tmp_path, content):
    run = begin(journal)
    run.artifact(tmp_path / "late.txt")
    list(Cursor(journal.path, store).advance())
    state = state_path(journal.path)
    text = state.read_text()
    before = text[: text.index('"aside"')] + '"refused": ["LogArtifact: late.txt is gone"]}'
    state.write_text(before)
    (tmp_path / "late.txt").write_text("here")
    cursor = Cursor(journal.path, store, again=True)
    list(cursor.advance())
    assert cursor.state.refused == []
    assert content(store).runs["run"]["artifacts"] == [("late.txt", 4)]


def test_a_run_is_never_refused(journal, store):
    client = MlflowClient(store)
    client.delete_experiment(client.create_experiment("rlinf-isaac"))
    begin(journal).end("FINISHED")
    cursor = Cursor(journal.path, store)
    with pytest.raises(Unreachable, match="the run cannot be created"):
        list(cursor.advance())
    client.restore_experiment(client.get_experiment_by_name("rlinf-isaac").experiment_id)
    assert sum(cursor.advance()) == 2


def test_a_file_that_is_too_large_for_a_proxy_holds_up_nothing(journal, server, tmp_path):
    run = begin(journal)
    for text in ("old", "new"):
        path = tmp_path / text / "file.txt"
        path.parent.mkdir()
        path.write_text(text)
        run.artifact(path)
        run.artifact(path, f"{text}.txt")
    run.metrics({"loss": 1.0}, 1)
    run.end("FINISHED")
    with Proxy(server.uri) as between:
        between.faults = lambda number: "413" if between.puts_a_file() else None
        cursor = Cursor(journal.path, between.uri)
        list(cursor.advance())
        assert cursor.pending() == 3, "the old file has been replaced"
        assert cursor.state.refused == []
        between.faults = lambda number: None
        list(Cursor(journal.path, between.uri).advance())
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    (found,) = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.run}'")
    assert found.info.status == "FINISHED"
    kept = {each.path for each in client.list_artifacts(found.info.run_id)}
    assert kept == {"file.txt", "old.txt", "new.txt"}
    assert Path(client.download_artifacts(found.info.run_id, "file.txt", str(tmp_path))).read_text() == "new"


def test_an_unknown_endpoint_and_a_page_are_for_later(journal, server):
    begin(journal).end("FINISHED")
    for fault in ("404", "400", "401", "429", "500"):
        with Proxy(server.uri, faults=proxy.since(fault)) as between:
            cursor = Cursor(journal.path, between.uri)
            with pytest.raises(Unreachable):
                list(cursor.advance())
            assert (cursor.pending(), cursor.state.refused) == (2, [])


def test_a_lost_answer_makes_no_second_run(journal, server):
    run = begin(journal)
    with Proxy(server.uri) as between:
        between.faults = lambda number: "lost" if between.creates_a_run() else None
        with pytest.raises(Unreachable):
            list(Cursor(journal.path, between.uri).advance())
        between.faults = lambda number: None
        list(Cursor(journal.path, between.uri).advance())
        assert sum("runs/create" in path for _, path, _ in between.requests) == 1, "one attempt, then a look"
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    assert len(client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run.run}'")) == 1


@pytest.mark.parametrize("name", ["a?b=1%20c", "a b#ä@ö:ü"])
def test_any_working_directory_will_do(tmp_path, monkeypatch, name):
    from mlflow_project.tracking.store import sqlite_path, tracking_uri

    directory = tmp_path / name
    directory.mkdir()
    monkeypatch.chdir(directory)
    uri = tracking_uri()
    assert sqlite_path(uri) == directory / "mlflow.db"
    journal = Journal.create(directory / "journal", "sft", uri)
    run = begin(journal)
    (directory / "a.txt").write_text("hello")
    run.artifact(directory / "a.txt")
    run.end("FINISHED")
    list(Cursor(journal.path, uri).advance())
    assert (directory / "mlflow.db").exists()
    assert list(directory.glob("mlruns/*/*/artifacts/a.txt"))
    if not {"%", "?"} & set(name):  # for these MLflow itself makes an empty directory
        assert [each.name for each in tmp_path.iterdir()] == [name], "nothing beside it"
    journal.close()


def test_a_fault_of_ours_is_named_so_and_holds_up_nothing(journal, store, content, caplog):
    run = begin(journal)
    journal.append(SetTags(run.run, None))  # no tags at all: `Replica` trips over it
    run.metrics({"loss": 1.0}, 1)
    run.end("FINISHED")
    journal.close()
    (reason,) = sync(journal.path.parent).refused
    assert "a bug of rlinf-isaac" in reason
    assert "AttributeError" in reason
    assert "MLflow refused" not in told(reason)
    (record,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert "in _apply_batch" in caplog.text, "where it happened"
    assert "a bug of rlinf-isaac" in record.message
    assert content(store).runs["run"]["metrics"].keys() == {"loss"}
    assert content(store).runs["run"]["status"] == "FINISHED"
    assert len(sync(journal.path.parent, again=True).refused) == 1, "it stays in the journal"
