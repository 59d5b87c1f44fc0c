"""The real ``lerobot-train``, recorded, at the size of `lerobot_toy`; in an interpreter with lerobot 0.4.

lerobot-venv/bin/python -m pytest -m lerobot tests/mlflow_project/callbacks/test_lerobot.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mlflow_project.tracking.sync import sync
from rlinf_isaac.ground.digest import file_digest

pytestmark = pytest.mark.lerobot
pytest.importorskip("lerobot")
TESTS = Path(__file__).parents[2]


@pytest.fixture
def train(store, tmp_path):
    """Run ``lerobot-train``; gives the exit code and what it printed, after its journal is in the store."""

    def trained(*words: str, **variables: str) -> tuple[int, str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
        environment |= {"MLFLOW_TRACKING_URI": store, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}
        command = [sys.executable, str(Path(__file__).with_name("tracked_lerobot.py")), *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        sync(tmp_path / "out/journal", patience_s=60)
        return done.returncode, done.stdout + done.stderr

    return trained


def training(store: str):
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    (run,) = client.search_runs([experiment], "tags.`mlflow.runName` = 'toy'")
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    return client, run, {each.info.run_name: each for each in nested}


def test_lerobot_train_is_killed_and_goes_on(train, store, tmp_path):
    from lerobot_toy import arguments, make_data

    data = make_data(tmp_path / "data")
    code, said = train(*arguments(data, tmp_path / "out"), KILL_AT="5")
    assert code == -9, said
    client, run, _ = training(store)
    assert run.info.status == "KILLED"
    saved = json.loads((tmp_path / "out/checkpoints/last/pretrained_model/train_config.json").read_text())
    assert saved["wandb"]["enable"] is False  # nothing of the callback stays in lerobot's files

    config = tmp_path / "out/checkpoints/last/pretrained_model/train_config.json"
    code, again = train(f"--config_path={config}", "--resume=true")
    assert code == 0, again
    client, run, checkpoints = training(store)
    assert (run.info.status, run.data.tags["resumed"]) == ("FINISHED", "1")
    printed = {(int(step), float(loss)) for step, loss in re.findall(r"step:(\d+) .*?loss:([\d.]+)", said + again)}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    recorded = {(point.step, round(point.value, 3)) for point in history}
    # The report of step 4 may have been on its way when the process was killed; the resumed training tells its own.
    assert {step for step, _ in printed - recorded} <= {4}
    assert {step for step, _ in recorded} == set(range(1, 7))
    assert run.data.params["lerobot/policy/type"] == "act"
    assert run.data.tags["lineage.norm_stats.sha256"] == file_digest(data / "meta/stats.json")
    assert len(run.data.tags["lineage.dataset.sha256"]) == 64
    assert run.data.tags["not_known"] == "commit"
    assert set(checkpoints) == {"checkpoint 000003", "checkpoint 000006"}
    for each in checkpoints.values():
        weights = Path(each.data.tags["checkpoint.path"]) / "pretrained_model/model.safetensors"
        assert each.data.tags["lineage.weights.sha256"] == file_digest(weights)
        assert each.data.metrics["eval/pc_success"] == 50.0
        assert each.data.metrics["eval/n_episodes"] == 4
        assert "eval/episodes" not in each.data.metrics  # this project's name for the episodes of an evaluation
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id, "eval/step_6")}
    assert artifacts == {f"eval/step_6/eval_episode_{number}.mp4" for number in range(4)} | {
        "eval/step_6/eval_info.json"
    }
    info = json.loads(Path(client.download_artifacts(run.info.run_id, "eval/step_6/eval_info.json")).read_text())
    assert info["per_task"][0]["metrics"]["successes"] == [True, False, True, False]
    assert info["overall"]["pc_success"] == 50.0


def test_a_failure_of_lerobot_train_is_recorded(train, store, tmp_path):
    from lerobot_toy import arguments, make_data

    code, said = train(*arguments(make_data(tmp_path / "data"), tmp_path / "out", eval_freq=0), FAIL_AT="2")
    assert code != 0
    client, run, _ = training(store)
    assert run.info.status == "FAILED", said
    assert run.data.tags["failure.reason"] == "RuntimeError: CUDA out of memory"
    assert "traceback.txt" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_train_that_was_imported_before_is_refused(tmp_path):
    script = tmp_path / "late.py"
    script.write_text(
        "from lerobot.scripts.lerobot_train import train\n"
        "from mlflow_project.callbacks import lerobot\n"
        "lerobot.track()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert "tracked-too-late" in done.stderr
