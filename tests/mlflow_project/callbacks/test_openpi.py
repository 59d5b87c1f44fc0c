"""OpenPI's own training scripts (of a checkout, OPENPI_MAIN), recorded, at the size of `openpi_toy`; in an interpreter
with OpenPI.

    OPENPI_MAIN=openpi openpi-venv/bin/python -m pytest -m parity tests/mlflow_project/callbacks/test_openpi.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlflow_project.tracking.sync import sync
from rlinf_isaac.ground.digest import file_digest

pytestmark = pytest.mark.parity
pytest.importorskip("openpi")
TESTS = Path(__file__).parents[2]


@pytest.fixture
def train(store, tmp_path):
    """Run a script of OpenPI's; gives the exit code and what it printed, after its journal is in the store."""

    def trained(script: str, *words: str, **variables: str) -> tuple[int, str]:
        checkout = os.environ.get("OPENPI_MAIN")
        if not checkout:
            pytest.skip("OPENPI_MAIN names no checkout of OpenPI's repository")
        places = os.pathsep.join([str(TESTS.parent), str(TESTS)])
        environment = os.environ | {"PYTHONPATH": places, "WANDB_MODE": "disabled", "JAX_PLATFORMS": "cpu"}
        environment |= {"MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1", **variables}
        command = [sys.executable, str(TESTS / "openpi_toy.py"), f"{checkout}/scripts/{script}", "toy", *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        sync(tmp_path / "checkpoints/toy/first/journal", patience_s=60)
        return done.returncode, done.stdout + done.stderr

    return trained


def runs(store: str) -> tuple[MlflowClient, list, list]:
    """The trainings and their checkpoints."""
    client = MlflowClient(store)
    found = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    nested = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    return client, [run for run in found if run not in nested], sorted(nested, key=lambda run: run.info.run_name)


def test_train_pytorch_fails_and_goes_on(train, store, tmp_path):
    code, said = train("train_pytorch.py", "--exp-name=first", FAIL_AT="3")
    assert code != 0
    client, (failed,), _ = runs(store)
    assert failed.info.status == "FAILED", said
    assert failed.data.tags["failure.reason"] == "RuntimeError: CUDA out of memory"
    code, again = train("train_pytorch.py", "--exp-name=first", "--resume")
    assert code == 0, again

    client, (run,), checkpoints = runs(store)
    assert (run.info.run_id, run.info.status) == (failed.info.run_id, "FINISHED")
    printed = {int(step): float(loss) for step, loss in re.findall(r"step=(\d+) loss=([\d.]+)", said + again)}
    history = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "train/loss")}
    assert history == pytest.approx(printed, abs=6e-5)
    assert run.data.params["openpi/model/action_horizon"] == "4"
    assert run.data.tags["lineage.norm_stats.sha256"] == file_digest(tmp_path / "assets/toy/arm/norm_stats.json")
    assert "dataset digest" in run.data.tags["not_known"]  # OpenPI's fake data are in no file
    assert [each.info.run_name for each in checkpoints] == ["checkpoint 2", "checkpoint 4"]
    for each in checkpoints:
        weights = Path(each.data.tags["checkpoint.path"]) / "model.safetensors"
        assert each.data.tags["lineage.weights.sha256"] == file_digest(weights)
        assert each.data.tags["mlflow.note.content"].strip() == f"rlinf-isaac bundle make {weights.parent}"


def test_train_jax(train, store, tmp_path):
    code, said = train("train.py", "--exp-name=first")
    assert code == 0, said
    client, (run,), checkpoints = runs(store)
    assert run.info.status == "FINISHED"
    printed = {int(step): float(loss) for step, loss in re.findall(r"Step (\d+): .*?loss=([\d.]+)", said)}
    history = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "train/loss")}
    assert history == pytest.approx(printed, abs=6e-5)
    assert len(history) == 5
    last = checkpoints[-1]
    assert last.data.tags["checkpoint.path"] == str(tmp_path / "checkpoints/toy/first/4")
    assert len(last.data.tags["lineage.weights.sha256"]) == 64
    assert last.data.tags["checkpoint.norm_stats"].endswith("4/assets/arm/norm_stats.json")
