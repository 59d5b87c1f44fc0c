from __future__ import annotations

import json

from mlflow import MlflowClient
from support import SMALL, only_error

from rlinf_isaac.data.lerobot_reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import load

OVERRIDES = ",".join(SMALL)


def test_stats_come_with_what_they_were_computed_from(invoke, store, small_dataset, tmp_path):
    result = invoke("norm_stats", "--dataset", small_dataset, "--output", "out", "--overrides", OVERRIDES)
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("out/norm_stats/*/norm_stats.json")
    stats, digest = load(path), LeRobotDataset(small_dataset).digest
    assert (stats.state.dim, stats.actions.dim) == (23, 7)
    provenance = json.loads((path.parent / "provenance.json").read_text())
    assert provenance == {"dataset": digest, "action_horizon": 8, "norm_stats": stats.digest}

    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert run.data.tags["lineage.norm_stats.sha256"] == stats.digest
    assert run.data.tags["lineage.dataset.sha256"] == digest
    assert "norm_stats.json" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_missing_dataset_is_refused_before_any_run_exists(invoke, store):
    result = invoke("norm_stats", "--dataset", "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert MlflowClient(store).get_experiment_by_name("rlinf-isaac") is None


def test_a_dataset_of_another_task_is_refused(invoke, small_dataset):
    result = invoke("norm_stats", "--dataset", small_dataset, "--overrides", "env.task=stack3")
    assert result.exit_code == 2
    assert "feature-dim" in result.stderr
    assert "prompt" in result.stderr


def test_an_unknown_preset_is_refused(invoke, small_dataset):
    only_error(invoke("norm_stats", "--dataset", small_dataset, "--preset", "tinny"), "unknown-preset")
