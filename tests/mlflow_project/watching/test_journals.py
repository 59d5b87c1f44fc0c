"""The reader of a journal that another process writes."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.live import Life, LifeFile, pid_namespace, read_life
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.watching.find import find_journal
from mlflow_project.watching.journals import JournalView, open_journal
from mlflow_project.watching.status import is_alive, status_of
from rlinf_isaac.ground.errors import InvalidJob


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal.create(tmp_path / "out" / "journal", "sft", "http://nobody")


def test_it_follows_and_disturbs_nothing(journal):
    recorder = Recorder.start(journal, "sft tiny", tags={"rlinf_isaac.verb": "sft"})
    view = JournalView(journal.path)
    recorder.metrics({"train/loss": 2.0}, step=20, time_s=100.0)
    assert view.read()
    assert not view.read()
    with open(journal.path, "ab") as file:
        file.write(b'{"op":"metrics","run":"')  # a writer that is at it
    before = journal.path.read_bytes()
    assert not view.read()
    assert journal.path.read_bytes() == before
    assert (view.root.name, view.root.verb) == ("sft tiny", "sft")
    assert view.root.metrics["train/loss"] == [(20, 100.0, 2.0)]


def test_checkpoints_and_nested_runs(journal):
    main = Recorder.start(journal, "main")
    sft = main.start_run("sft", {"rlinf_isaac.verb": "sft"})
    sft.metrics({"train/loss": 1.0}, step=400, time_s=2e9)
    sft.model("ab" * 32, "pi0-step-400", "output", 400, tags={"checkpoint.uri": "/c/400"})
    evaluated = main.start_run("step-400")
    numbers = {"eval/success_once": 0.5, "eval/success_low": 0.25, "eval/success_high": 0.75, "eval/episodes": 8.0}
    evaluated.metrics(numbers, step=400)
    main.end("FAILED", "it broke")
    status = status_of(JournalView(journal.path))
    assert (status.state, status.root.failure) == ("failed", "it broke")
    assert status.saved == (400, 2e9)
    assert str(status.success) == "50 % (25 .. 75 %, n = 8) at step 400"
    assert status.run_id is None
    assert status.unsent == status.view.size


def test_no_journal(tmp_path):
    (tmp_path / "x.jsonl").write_text("{}\n")
    assert open_journal(tmp_path / "x.jsonl") is None
    with pytest.raises(InvalidJob) as raised:
        find_journal(str(tmp_path / "x.jsonl"), tmp_path)
    assert [problem.code for problem in raised.value.problems] == ["no-journal"]


def test_found_by_directory_name_and_id(journal, tmp_path, monkeypatch):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    recorder = Recorder.start(journal, "sft tiny-0123")
    weights = tmp_path / "out" / "sft" / "tiny-0123" / "checkpoints" / "4" / "config.json"
    weights.parent.mkdir(parents=True)
    weights.write_text("{}")
    recorder.artifact(weights)
    state = {"offset": 0, "runs": {recorder.run: ["5" * 32, "1"]}, "models": {}}
    journal.path.with_name(f"{journal.path.name}.state.json").write_text(json.dumps(state))
    other = Journal.create(tmp_path / "out" / "journal", "sweep", "http://nobody")
    Recorder.start(other, "eval")
    output = tmp_path / "out"
    for subject in (
        str(journal.path),
        str(weights.parents[2]),
        "sft tiny-0123",
        "5" * 32,
        "555555",
        f"http://x/#/experiments/1/runs/{'5' * 32}",
    ):
        assert find_journal(subject, output) == journal.path, subject
    newest = max(journal.path, other.path, key=lambda path: path.name)
    assert find_journal(None, output) == find_journal(str(output), output) == newest
    for subject in ("555556", "nobody", "4" * 32):
        with pytest.raises(InvalidJob) as raised:
            find_journal(subject, output)
        assert "'sft tiny-0123'" in raised.value.problems[0].cure


def test_a_process_that_is_gone(journal):
    Recorder.start(journal, "sft")
    assert status_of(JournalView(journal.path)).state == "running", "it is this process"
    header = JournalView(journal.path).header
    assert not is_alive(header.pid, header.created - 1e6, None), "this process is younger than the journal"
    assert not is_alive(2**22 + 1, header.created, None), "there is no such process"
    here = Life(header.pid, socket.gethostname(), pid_namespace(), written=time.time())
    assert not is_alive(2**22 + 1, header.created, replace(here, pid=2**22 + 1)), "killed a second ago"
    elsewhere = replace(here, host="elsewhere")
    assert is_alive(header.pid, header.created, elsewhere), "fresh"
    elsewhere.written -= 3600
    assert not is_alive(header.pid, header.created, elsewhere)


def test_a_sign_of_life_that_cannot_be_written_or_read(tmp_path):
    life = LifeFile(tmp_path / "nowhere" / "x.jsonl")
    life.line("the work goes on")
    assert read_life(tmp_path / "nowhere" / "x.jsonl") is None
    path = Path(f"{tmp_path}/x.jsonl.live.json")
    for text in ("", "[]", '{"pid": 1', '{"unknown": 1}', '{"work": [{}]}'):
        path.write_text(text)
        assert read_life(tmp_path / "x.jsonl") is None
