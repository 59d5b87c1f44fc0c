from __future__ import annotations

import os
import select
import signal
import socket
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from support import only_error

from mlflow_project.tracking.runs import tracked_run
from mlflow_project.watching.served import find_store, free_port, tunnel, view_of


def test_it_serves_the_comparison_and_leaves_nothing_behind(start, store, tmp_path, monkeypatch):
    with tracked_run("main", output=Path("out"), name="main tiny") as run:
        run.recorder.text("comparison.html", "<p>compared</p>")
        run.recorder.tags({"comparison.verdict": "a is best"})
        run.recorder.start_run("eval", {"rlinf_isaac.verb": "eval", "comparison.verdict": "a is best"})
        several = run.recorder.start_run("rl", {"rlinf_isaac.verb": "rl"})
        several.start_run("from-step-6", {"rlinf_isaac.verb": "rl", "comparison.verdict": "b is tied"})
    run_id, experiment = run.ids()
    with tracked_run("sft", output=Path("out"), name="sft later"):
        pass
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    process = start("ui", "--port", str(free_port(None, "127.0.0.1")))
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    text = "".join(lines)
    link = next(line.split()[1] for line in lines if line.startswith("open "))
    assert link.endswith(
        f"/#/experiments/{experiment}/runs/{run_id}/artifacts/comparison.html?workflowType=machine_learning"
    )
    address = link.partition("/#/")[0]
    assert f"ssh -L {address.rpartition(':')[2]}:127.0.0.1:" in text
    with urllib.request.urlopen(f"{address}/api/2.0/mlflow/runs/get?run_id={run_id}") as answer:
        assert b"main tiny" in answer.read()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ends = [os.pidfd_open(int(child)) for child in children]
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 0
    assert len(ends) == 1
    assert select.select(ends, [], [], 60)[0] == ends
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}/health")


def test_the_store_of_a_run_is_found_from_anywhere(invoke, store, tmp_path, monkeypatch):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    with tracked_run("eval", output=Path("out"), name="eval x") as run:
        pass
    run_id, experiment = run.ids()
    (tmp_path / "mlflow.db").rename(tmp_path / "out" / "moved.db")
    for name in ("other", "third"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "other")
    only_error(invoke("ui"), "not-in-store")
    (tmp_path / "out" / "moved.db").rename(tmp_path / "mlflow.db")
    monkeypatch.chdir("/")
    for subject in (run_id, run_id[:7], "eval x", f"http://x/#/experiments/1/runs/{run_id}"):
        uri, found = find_store(subject)
        assert (uri, found.info.run_id) == (store, run_id)
    only_error(invoke("ui", "0" * 32), "not-in-store")
    from mlflow import MlflowClient

    link = view_of(MlflowClient(store), "http://h:1", found)
    assert link.startswith(f"http://h:1/#/experiments/{experiment}/runs?"), "the checkpoints that it compares"


def test_a_port_that_is_in_use(invoke, store):
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        only_error(invoke("ui", "--port", port), "address")
        assert free_port(None, "127.0.0.1") != port


def test_the_tunnel_leads_to_the_address_that_was_dialled(monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.2 50000 10.0.0.1 22")
    assert tunnel(5003).startswith("ssh -L 5003:127.0.0.1:5003 ")
    assert tunnel(5003).endswith("@10.0.0.1")
