from __future__ import annotations

import json
import shutil

import pytest
from mlflow import MlflowClient
from support import SHORT_EVALUATION, SMALL_RL, only_error

from rlinf_isaac.checkpoint.bundle import read_bundle

OVERRIDES = ",".join([*SMALL_RL, "eval.videos=1"])


def train(root, *more, output="out", overrides=OVERRIDES):
    small = ["--iterations", 2, "--workers", 1, "--eval-episodes", 3]
    return ["rl", "--ckpt-root", root, *small, "--output", output, "--overrides", overrides, *more]


def runs_of(store):
    client = MlflowClient(store)
    found = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    return client, {run.info.run_name: client.get_run(run.info.run_id) for run in found}


def digests(directory):
    return {
        (path.parent.parent.name, path.name): read_bundle(path).digest for path in directory.glob("rl/*/checkpoints/*")
    }


def test_two_checkpoints_are_nested_runs_that_differ_in_the_checkpoint_alone(
    invoke, store, small_checkpoints, tmp_path
):
    result = invoke(*train(small_checkpoints, "--ckpt-steps", "4,6"))
    assert result.exit_code == 0, result.output + repr(result.exception)
    client, runs = runs_of(store)
    four, six = runs["from-step-4"], runs["from-step-6"]
    (parent,) = (run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags)
    for run in (four, six):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED"
        metrics = run.data.metrics
        assert metrics["gain/success_once"] == metrics["eval/success_once"] - metrics["before/success_once"]
        assert [point.step for point in client.get_metric_history(run.info.run_id, "rollout/success_once")] == [1, 2]
        assert run.data.tags["rl.reward"] == "success"
        assert len(run.inputs.model_inputs) == 1
        assert len(run.outputs.model_outputs) == 2
    assert {name for name in four.data.params if four.data.params[name] != six.data.params[name]} == {"checkpoint/step"}

    together = digests(tmp_path / "out")
    assert len(together) == 4
    for step in (4, 6):
        assert invoke(*train(small_checkpoints, "--ckpt-steps", step, output="single")).exit_code == 0
    assert digests(tmp_path / "single") == together


def test_before_and_after_are_played_on_the_same_seeds(invoke, small_checkpoints, tmp_path):
    assert invoke(*train(small_checkpoints, "--ckpt-steps", 6)).exit_code == 0
    rows = [json.loads(line) for file in tmp_path.rglob("episodes.jsonl") for line in file.read_text().splitlines()]
    assert sorted((row["checkpoint_step"], row["seed"]) for row in rows) == [
        (step, seed) for step in (2, 6) for seed in (5000, 5001, 5002)
    ]


def test_the_result_can_be_evaluated_by_itself(invoke, small_checkpoints, tmp_path):
    assert invoke(*train(small_checkpoints, "--ckpt-steps", 6)).exit_code == 0
    (root,) = (tmp_path / "out" / "rl").glob("*/checkpoints")
    result = invoke("eval", "--ckpt-root", root, "--episodes", 2, "--overrides", SHORT_EVALUATION)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--algorithm", "sac"], "bad-value"),
        (["--overrides", "rl.first_seed=5000"], "rl-seeds"),
        (["--overrides", "model.action_horizon=4"], "not-overridable"),
        (["--overrides", "rl.num_envs=3", "--workers", 2], "rl-workers"),
    ],
)
def test_a_job_that_cannot_start_says_why(invoke, small_checkpoints, options, code):
    only_error(invoke("rl", "--ckpt-root", small_checkpoints, *options), code)


def test_a_damaged_checkpoint_is_refused(invoke, small_checkpoints, tmp_path):
    root = tmp_path / "checkpoints"
    shutil.copytree(small_checkpoints / "6", root / "6")
    with open(root / "6" / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    only_error(invoke(*train(root)), "file-changed")
