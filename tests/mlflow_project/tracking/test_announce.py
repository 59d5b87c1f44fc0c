"""What a verb says first."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from support import use_dead_server

from mlflow_project.tracking.announce import Stages, say_header, say_link
from mlflow_project.tracking.runs import tracked_run
from mlflow_project.tracking.terminal import SafeConsole


@pytest.fixture
def console() -> SafeConsole:
    return SafeConsole(file=io.StringIO(), width=80)


def lines(console: SafeConsole) -> list[str]:
    return console.file.getvalue().splitlines()


def test_the_link_is_first_and_said_once(store, console):
    stages = Stages("norm stats", "fine-tuning")
    with tracked_run("main", output=Path("out")) as run:
        stages.begin("fine-tuning", console)
        with tracked_run("sft", output=Path("out")):
            say_header({"device": "cpu", "base": ""}, console)
        run_id, experiment = run.ids()
    link, ui, watch, _, stage, header = lines(console)
    assert link.split() == [
        "run",
        f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning",
    ]
    assert ui.split()[:3] == ["rlinf-isaac", "ui", run_id]
    assert watch.split()[:3] == ["rlinf-isaac", "watch", run_id]
    assert stage == "2/2 fine-tuning"
    assert header.split() == ["device", "cpu"], "what has no value is left out"


def test_a_dead_server_is_not_waited_for(console, monkeypatch, dead_uri):
    use_dead_server(monkeypatch, dead_uri)
    with tracked_run("sft", output=Path("out")) as run:
        say_link(console)
        journal = run.recorder.journal.path
    assert "no link yet" in lines(console)[0]
    assert str(journal) in lines(console)[1], "`watch` needs no server"


def test_nothing_outside_of_a_run(console):
    say_link(console)
    assert lines(console) == []
