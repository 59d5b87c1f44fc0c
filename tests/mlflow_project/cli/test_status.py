"""`status` of verbs that others than this machine's owner would ask about; test_watch.py has a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import use_dead_server

from mlflow_project.tracking.runs import tracked_run


def test_a_dead_server_and_a_failure(invoke, monkeypatch, dead_uri, tmp_path):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    use_dead_server(monkeypatch, dead_uri)
    running = []

    def fail() -> None:
        with tracked_run("eval", output=Path("out"), name="eval x") as run:
            run.recorder.metrics({"heldout/success_once": 0.25}, step=3)
            running.extend(json.loads(invoke("status", "--output", "out", "--json").stdout))
            raise ValueError("too cold")

    with pytest.raises(ValueError, match="too cold"):
        fail()
    (seen,) = running
    assert (seen["state"], seen["run_id"], seen["success"]["rate"]) == ("running", None, 0.25)
    assert seen["unsent_bytes"] > 0
    failed = invoke("status", "out")
    assert failed.exit_code == 1
    for words in ("eval x  failed", "ValueError: too cold", "25 % at step 3, held-out seeds", "does not have it yet"):
        assert words in failed.stdout
    # Without a subject it is no failure of `status`.
    assert invoke("status", "--output", "out").exit_code == 0
