"""`eval --engine rlinf`: refused without RLinf, and with it (tests marked `rlinf`) the runs of the local engine."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rlinf_support import owned_by
from support import SHORT_EVALUATION, kill_when, only_error, rows_of, shown

PYTHON = os.environ.get("RLINF_PYTHON", sys.executable)


def evaluate(checkpoints: Path, *options: str, output: str = "out") -> list[str]:
    words = ["eval", "--ckpt-root", str(checkpoints), "--ckpt-steps", "2,6", "--output", output]
    return [*words, "--overrides", SHORT_EVALUATION, *options]


@pytest.fixture
def bare_python(tmp_path) -> str:
    """A Python that has no packages."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_an_interpreter_without_rlinf_is_refused(invoke, small_checkpoints, bare_python, tmp_path):
    result = invoke(*evaluate(small_checkpoints, "--engine", "rlinf", "--rlinf-python", bare_python))
    only_error(result, "no-rlinf")
    assert "rlinf, ray, torch" in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_interpreter_that_does_not_run_is_refused(invoke, small_checkpoints, tmp_path):
    options = ("--engine", "rlinf", "--rlinf-python", str(tmp_path / "missing"))
    only_error(invoke(*evaluate(small_checkpoints, *options)), "bad-rlinf-python")


def test_all_problems_at_once(invoke, small_checkpoints, bare_python):
    options = (
        "--engine",
        "rlinf",
        "--rlinf-python",
        bare_python,
        "--rlinf-overrides",
        "runner.ckpt_path=x.pt,no.key=1",
    )
    result = invoke(*evaluate(small_checkpoints, *options))
    assert result.exit_code == 2
    for code in ("no-rlinf", "rlinf-not-overridable", "rlinf-unknown-key"):
        assert code in result.stderr


@pytest.mark.rlinf
def test_the_runs_are_those_of_the_local_engine(invoke, store, small_checkpoints, tmp_path):
    for engine in ("local", "rlinf"):
        options = ("--engine", engine, "--rlinf-python", PYTHON)
        result = invoke(*evaluate(small_checkpoints, *options, output=engine))
        assert result.exit_code == 0, result.output
    assert rows_of(tmp_path / "local") == rows_of(tmp_path / "rlinf")

    client = MlflowClient(store)
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    parents = {run.data.tags["engine"]: run for run in found if "mlflow.parentRunId" not in run.data.tags}
    children = {
        (engine, run.info.run_name): run
        for engine, parent in parents.items()
        for run in found
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    assert len(children) == 4
    for step in ("step-2", "step-6"):
        local, rlinf = children["local", step], children["rlinf", step]
        assert rlinf.data.metrics == local.data.metrics
        assert rlinf.data.params == local.data.params
        assert rlinf.data.tags.keys() == local.data.tags.keys()
        files = [
            sorted(
                (path.relative_to(root).as_posix(), path.read_bytes())
                for path in root.rglob("*")
                if path.suffix in (".mp4", ".json") and path.name != "settings.json"
            )
            for root in (Path(run.info.artifact_uri) for run in (local, rlinf))
        ]
        assert files[0] == files[1]
    tags = parents["rlinf"].data.tags
    assert tags["rlinf.version.rlinf"].startswith("0.3.")
    assert (Path(parents["rlinf"].info.artifact_uri) / "rlinf/config.yaml").is_file()
    assert parents["rlinf"].data.metrics["eval/num_trajectories"] == 5

    # `ingest` of the directory that RLinf wrote: what RLinf says of itself, with its videos.
    (directory,) = (path.parent for path in (tmp_path / "rlinf").rglob("tensorboard"))
    assert invoke("ingest", "--source", directory, "--output", "ingested").exit_code == 0
    (ingested,) = client.search_runs([parents["rlinf"].info.experiment_id], f"tags.`ingest.source` = '{directory}'")
    for name in ingested.data.metrics:
        runs = (ingested.info.run_id, parents["rlinf"].info.run_id)
        points = [{each.step: each.value for each in client.get_metric_history(run, name)} for run in runs]
        assert points[0] == pytest.approx(points[1], rel=1e-6)
        assert list(points[0]) == [2, 6]
    recorded = [Path(run.info.artifact_uri) / "rlinf" for run in (ingested, parents["rlinf"])]
    films = [sorted(path.read_bytes() for path in root.rglob("*.mp4")) for root in recorded]
    assert films[0] == films[1] != []


@pytest.mark.rlinf
@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(signal.SIGTERM, "KILLED", 143), (signal.SIGKILL, "RUNNING", -9)],
)
def test_a_signal_leaves_no_process(start, store, small_checkpoints, number, status, code):
    options = ("--engine", "rlinf", "--rlinf-python", PYTHON, "--episodes", "500")
    process = start(*evaluate(small_checkpoints, *options))
    kill_when(process, shown("eval step-2", 50), number)
    assert process.returncode == code
    while code == -9 and owned_by(process.pid):  # the driver notices that its parent is gone
        pass
    assert owned_by(process.pid) == []
    client = MlflowClient(store)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert {run.info.status for run in runs} == {status}
    if number == signal.SIGKILL:  # nobody was there to end it; the next command with this output does
        assert start("sync", "--output", "out").wait() == 0
        runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
        assert {run.info.status for run in runs} == {"KILLED"}
