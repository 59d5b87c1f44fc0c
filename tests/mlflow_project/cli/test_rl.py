from __future__ import annotations

import json
import shutil

import pytest
import yaml
from mlflow import MlflowClient
from support import SHORT_EVALUATION, SMALL_PRESET, SMALL_RL, kill_when, only_error, rows_of, shown

from mlflow_project.tracking import ui
from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.checkpoint.header import read_keys
from rlinf_isaac.config import load_config
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.jobs.rl import KEYS, check
from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
from rlinf_isaac.preflight import Findings

OVERRIDES = ",".join([*SMALL_RL, "eval.videos=1"])

RUINED = f"{OVERRIDES},rl.warmup_iterations=1,rl.reward=shaped"


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


def episodes(directory):
    return sorted(map(json.dumps, rows_of(directory)))


def training_metrics(directory):
    """Of every training, without those of the clock."""
    return {
        path.parent.name: [
            {key: value for key, value in json.loads(line)["values"].items() if not key.startswith("time/")}
            for line in path.read_text().splitlines()
        ]
        for path in directory.glob("rl/*/metrics.jsonl")
    }


def test_two_checkpoints_are_nested_runs_that_differ_in_the_checkpoint_alone(
    invoke, store, small_checkpoints, tmp_path
):
    result = invoke(*train(small_checkpoints, "--ckpt-steps", "4,6"))
    assert result.exit_code == 0, result.output + repr(result.exception)
    client, runs = runs_of(store)
    four, six = runs["from-step-4"], runs["from-step-6"]
    (parent,) = (run for run in runs.values() if "mlflow.parentRunId" not in run.data.tags)
    used = bytes_digest(read_bundle(small_checkpoints / "4").norm_stats_bytes)
    assert f"norm stats   sha256 {used} (in the checkpoint, {small_checkpoints / '4'}" in result.stdout
    for run in (parent, four, six):
        assert run.data.tags["lineage.norm_stats.sha256"] == used
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
    view = client.get_experiment(parent.info.experiment_id).tags[
        f"mlflow.sharedViewState.{ui.view_name(parent.info.run_id)}"
    ]
    assert {*ui.GAIN_COLUMNS, *ui.GAIN_CHARTS} <= set(four.data.metrics)
    assert all(f"metrics.`{key}`" in json.loads(view)["selectedColumns"] for key in ui.GAIN_COLUMNS)

    together = digests(tmp_path / "out")
    assert len(together) == 4
    for step in (4, 6):
        assert invoke(*train(small_checkpoints, "--ckpt-steps", step, output="single")).exit_code == 0
    assert digests(tmp_path / "single") == together
    assert episodes(tmp_path / "single") == episodes(tmp_path / "out") != []
    assert training_metrics(tmp_path / "single") == training_metrics(tmp_path / "out") != {}


@pytest.mark.parametrize("choice", [["--algorithm", "grpo"], ["--exploration", "flow_noise"]])
def test_the_other_algorithm_and_the_other_exploration(invoke, store, small_checkpoints, tmp_path, choice):
    more = ["--ckpt-steps", 6, "--iterations", 1, "--reward", "shaped", *choice]
    overrides = f"{OVERRIDES},rl.group_size=2" if "grpo" in choice else OVERRIDES.replace("rl.noise_steps=0,", "")
    result = invoke(*train(small_checkpoints, *more, overrides=overrides))
    assert result.exit_code == 0, result.output + repr(result.exception)
    run = runs_of(store)[1]["from-step-6"]
    assert run.data.params[f"cfg/rl/{choice[0].strip('-')}"] == choice[1]
    assert (run.data.params["cfg/rl/reward"], run.data.tags["rl.reward"]) == ("shaped", "shaped")
    assert run.data.metrics["train/first_ratio_error"] == 0.0
    (bundle,) = (read_bundle(path) for path in (tmp_path / "out").glob("rl/*/checkpoints/1"))
    assert bundle.config["job"]["rl"]["reward"] == "shaped"
    heads = {name.partition(".")[0] for name in read_keys(bundle.path) if name.startswith(OPTIONAL_PREFIXES)}
    assert heads == {"value_head", "noise_head"} if "flow_noise" in choice else {"value_head"}


def test_a_loss_that_is_no_number_ends_the_training_and_the_last_checkpoint_is_its_result(
    invoke, store, small_checkpoints, tmp_path
):
    """In the first iteration only the value head learns; in the second the policy, with an absurd learning rate."""
    job = train(small_checkpoints, "--ckpt-steps", 6, "--lr", "1e30", overrides=RUINED)
    result = invoke(*job)
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert "Training ended after iteration 2" in result.stdout
    _, runs = runs_of(store)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    run = runs["from-step-6"]
    assert run.data.tags["rl.ended"] == "collapsed"
    assert "The result is checkpoint 1" in run.data.tags["rl.result"]
    assert set(runs) >= {"step-6", "step-6-rl-1"}
    (root,) = (tmp_path / "out").glob("rl/*/checkpoints")
    assert list(find_bundles(root)) == [1]
    kept = digests(tmp_path / "out")
    assert invoke(*job).exit_code == 0, "it is told again"
    assert digests(tmp_path / "out") == kept


def test_without_a_guard_it_fails_the_run_and_the_last_checkpoint_stays(invoke, store, small_checkpoints, tmp_path):
    job = train(small_checkpoints, "--ckpt-steps", 6, "--lr", "1e30", overrides=f"{RUINED},rl.guard=false")
    result = invoke(*job)
    assert result.exit_code == 1, result.output
    assert "TrainingDiverged" in result.stderr
    assert "rl.lr" in result.stderr
    _, runs = runs_of(store)
    assert {run.info.status for run in runs.values()} == {"FAILED"}
    assert "TrainingDiverged" in runs["from-step-6"].data.tags["failure.reason"]

    (root,) = (tmp_path / "out").glob("rl/*/checkpoints")
    assert list(find_bundles(root)) == [1]
    assert invoke("eval", "--ckpt-root", root, "--episodes", 2, "--overrides", SHORT_EVALUATION).exit_code == 0
    kept = digests(tmp_path / "out")
    assert invoke(*job).exit_code == 1, "it goes on from there, and diverges again"
    assert digests(tmp_path / "out") == kept


@pytest.mark.slow
def test_killed_and_started_again_ends_with_the_same_bytes_and_a_whole_lineage(
    invoke, start, store, small_checkpoints, tmp_path
):
    job = train(small_checkpoints, "--ckpt-steps", 6, "--iterations", 4)
    kill_when(start(*job), shown("rl", 2))
    killed = digests(tmp_path / "out")
    assert {step for _, step in killed} <= {"1", "2", "3"}
    assert invoke(*job).exit_code == 0
    resumed = digests(tmp_path / "out")
    assert killed.items() <= resumed.items()
    runs = MlflowClient(store).search_runs(["1"], "attributes.run_name = 'from-step-6'")
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
    for path in (tmp_path / "out").glob("rl/*/checkpoints/*"):
        result = invoke("lineage", path)
        assert result.exit_code == 0, result.output

    assert invoke(*train(small_checkpoints, "--ckpt-steps", 6, "--iterations", 4, output="whole")).exit_code == 0
    assert digests(tmp_path / "whole") == resumed
    assert training_metrics(tmp_path / "whole") == training_metrics(tmp_path / "out")


def test_before_and_after_are_played_on_the_same_seeds(invoke, small_checkpoints, tmp_path):
    assert invoke(*train(small_checkpoints, "--ckpt-steps", 6)).exit_code == 0
    assert [(row["checkpoint_step"], row["seed"]) for row in rows_of(tmp_path)] == [
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


def test_a_checkpoint_of_a_preset_of_ones_own_brings_its_section_rl(invoke, small_dataset, tmp_path):
    preset = yaml.safe_load(SMALL_PRESET.read_text()) | {"preset": "mine", "rl": {"lr": 0.5}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(preset))
    arguments = ("--dataset", small_dataset, "--preset", "mine.yaml", "--steps", 2)
    assert invoke("sft", *arguments).exit_code == 0
    (root,) = tmp_path.glob("result/isaaclab_openpi/sft/*/checkpoints")
    common = dict.fromkeys(KEYS, "auto") | {
        "engine": "local",
        "ckpt_root": str(root),
        "ckpt_steps": "auto",
        "overrides": "none",
        "assume": "none",
    }
    for chosen, lr in (("auto", 0.5), ("tiny", load_config("tiny").rl.lr), ("mine.yaml", 0.5)):
        findings = Findings()
        (job,) = check(findings, preset=chosen, output=tmp_path, **common)
        assert findings.errors == []
        assert job.config.rl.lr == lr


def test_a_damaged_checkpoint_is_refused(invoke, small_checkpoints, tmp_path):
    root = tmp_path / "checkpoints"
    shutil.copytree(small_checkpoints / "6", root / "6")
    with open(root / "6" / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    only_error(invoke(*train(root)), "file-changed")
