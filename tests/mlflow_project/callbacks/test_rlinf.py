"""RLinf's own runner (`stock_rlinf`), recorded by two lines in its script, under its own interpreter (RLINF_PYTHON)."""

from __future__ import annotations

import os
import subprocess

import pytest
from mlflow import MlflowClient
from rlinf_support import PYTHON, TESTS, ray_cluster

from mlflow_project.tracking.sync import sync
from rlinf_isaac.engines.rlinf.results import read_results

pytestmark = [pytest.mark.rlinf, pytest.mark.xdist_group("stock_rlinf")]


def run_of(client: MlflowClient, query: str):
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    (run,) = client.search_runs([experiment], query)
    return run


def train(environment: dict[str, str], log_path, *overrides: str) -> int:
    command = [PYTHON, str(TESTS / "tracked_rlinf.py"), "embodied", str(log_path), *overrides]
    with open(log_path.with_suffix(".log"), "w") as log:
        return subprocess.run(command, env=environment, stdout=log, stderr=log, cwd=log_path.parent).returncode


def test_a_run_of_rlinfs_own_scripts_is_recorded_fails_and_goes_on(store, tmp_path):
    """It fails after its checkpoint of step 2, and is resumed there."""
    output = tmp_path / "noise"
    with ray_cluster() as cluster:
        environment = cluster | {"RLINF_EXT_MODULE": "stock_rlinf", "MLFLOW_TRACKING_URI": store}
        environment |= {"OMP_NUM_THREADS": "1"}
        assert train(environment | {"FAIL_AT": "2"}, output) != 0
        sync(output / "journal", patience_s=60)
        client = MlflowClient(store)
        failed = run_of(client, "tags.`rlinf_isaac.verb` = 'rlinf-train' and tags.team = 'grasping'")
        assert failed.info.status == "FAILED"
        assert "the disk of checkpoints is full" in failed.data.tags["failure.reason"]
        assert "traceback.txt" in {file.path for file in client.list_artifacts(failed.info.run_id)}

        checkpoint = output / "noise/checkpoints/global_step_2"
        log = output.with_suffix(".log").read_text()
        assert train(environment, output, f"runner.resume_dir={checkpoint}") == 0, log
    assert sync(output / "journal", patience_s=60).complete

    run = run_of(client, "tags.`rlinf_isaac.verb` = 'rlinf-train' and tags.team = 'grasping'")
    assert run.info.run_id == failed.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.tags["resumed"] == "1"
    assert run.data.params["rlinf/env/eval/max_episode_steps"] == "8"
    # What RLinf's TensorBoard has, which is what `ingest` reads, with its steps.
    results = read_results(output)
    for point in results.points:
        for name, value in point.values.items():
            history = {each.step: each.value for each in client.get_metric_history(run.info.run_id, name)}
            assert history[point.step] == pytest.approx(value, rel=1e-6), (name, point.step)
    nested = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert {each.info.run_name for each in nested} == {"global_step_2", "global_step_3"}
    last = next(each for each in nested if each.info.run_name == "global_step_3")
    assert len(last.data.tags["lineage.weights.sha256"]) == 64
    assert last.data.metrics["train/actor/policy_loss"] == run.data.metrics["train/actor/policy_loss"]
    assert "bundle make" in last.data.tags["mlflow.note.content"]
    assert os.path.samefile(last.data.tags["checkpoint.path"], output / "noise/checkpoints/global_step_3")
