from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import use_dead_server

from mlflow_project.tracking.runs import tracked_run


@pytest.fixture
def checkpoints(tmp_path) -> Path:
    for step in (2, 4):
        (tmp_path / "checkpoints" / str(step) / "assets").mkdir(parents=True)
        (tmp_path / "checkpoints" / str(step) / "assets" / "weights").write_bytes(bytes(1000 * step))
    return tmp_path / "checkpoints"


def sweep(checkpoints: Path) -> None:
    """What a training and a later evaluation of one of its two checkpoints record."""
    with tracked_run("sft", output=Path("out"), name="sft tiny-0123abcd") as run:
        for step in (2, 4):
            tags = {"checkpoint.uri": str(checkpoints / str(step)), "checkpoint.sha256": f"{step:064x}"}
            run.recorder.model(
                f"{step:064x}", f"pi0-tiny-step-{step}", "output", step, params={"step": step}, tags=tags
            )
    with tracked_run("eval", output=Path("out"), name="eval tiny-0123abcd x 1") as run:
        nested = run.recorder.start_run("step-4", {"checkpoint.sha256": f"{4:064x}"})
        rates = {"success_once": 0.75, "success_low": 0.5, "success_high": 0.875, "episodes": 16}
        nested.metrics({f"eval/{name}": value for name, value in rates.items()}, step=4)


def test_runs_with_their_checkpoints(invoke, checkpoints):
    sweep(checkpoints)
    result = invoke("ls", "--json")
    assert result.exit_code == 0, result.stderr + repr(result.exception)
    listed = json.loads(result.stdout)["runs"]
    assert [(row["verb"], row["status"], len(row["checkpoints"])) for row in listed] == [
        ("eval", "finished", 1),
        ("sft", "finished", 2),
    ]
    evaluated = {"rate": 0.75, "low": 0.5, "high": 0.875, "episodes": 16}
    assert listed[0]["success"] == listed[1]["success"] == evaluated
    first, second = listed[1]["checkpoints"]
    assert (first["step"], first["success"], second["step"], second["success"]) == (2, None, 4, evaluated)
    assert second["size"] == 4000

    lines = invoke("ls").stdout.splitlines()
    assert len(lines) == 7
    assert "75 % (50 .. 88), n = 16" in lines[-1]
    assert lines[-1].endswith("  checkpoints/4"), "a pipe cuts and wraps nothing"
    assert len(json.loads(invoke("ls", "--json", "--limit", "1").stdout)["runs"]) == 1


def test_the_journals_where_the_server_is_dead(invoke, checkpoints, monkeypatch, dead_uri, tmp_path):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    use_dead_server(monkeypatch, dead_uri)
    sweep(checkpoints)
    result = invoke("ls", "--output", "out", "--json")
    assert "does not answer" in result.stderr
    listed = json.loads(result.stdout)["runs"]
    assert [(row["verb"], len(row["checkpoints"]), row["success"]["rate"]) for row in listed] == [
        ("eval", 1, 0.75),
        ("sft", 2, 0.75),
    ]


def test_nothing(invoke, store):
    assert invoke("ls").stdout == f"no runs of rlinf-isaac in {store}\n"
