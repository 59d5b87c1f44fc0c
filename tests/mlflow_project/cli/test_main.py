from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import SHORT_EVALUATION, SMALL, SMALL_RL, only_error, rows_of

SHORT_RL = [item for item in SMALL_RL if item != SHORT_EVALUATION]
ENOUGH = ["env.max_episode_steps=128", "eval.episodes=2", "eval.videos=1"]  # the expert needs 114 steps
OVERRIDES = ",".join([*SMALL, *SHORT_RL, *ENOUGH, "rl.episodes=2"])
OVERRIDES_WITHOUT_RL = ",".join([*SMALL, *ENOUGH])
WITHOUT_RL = ["main", "--rl-iterations", "0", "--output", "out", "--overrides"]
PROJECT = Path(__file__).parents[3]


def tree(store, experiment="rlinf-isaac"):
    """Run name -> (status, names of the nested runs)."""
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], order_by=["start_time"])
    children = {run.info.run_id: [] for run in runs}
    for run in runs:
        if parent := run.data.tags.get("mlflow.parentRunId"):
            children[parent].append(run.info.run_name.split()[0])
    return [(run.info.run_name.split()[0], run.info.status, children[run.info.run_id]) for run in runs]


def check_main(store) -> None:
    """The run of `main` says what was done, and what came of it."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    (found, *_) = client.search_runs([experiment], "tags.rlinf_isaac.verb = 'main'")
    run = client.get_run(found.info.run_id)
    assert re.fullmatch(r"main tiny \d{4}-\d\d-\d\d", run.info.run_name)
    params, metrics = run.data.params, run.data.metrics
    assert (params["cfg/preset"], params["cfg/env/task"], params["cfg/eval/episodes"]) == ("tiny", "stack2", "2")
    assert "auto" not in params.values()
    assert not [key for key in params if key.startswith("cfg/model")]
    best, low, high = (metrics[f"main/best_success_{bound}"] for bound in ("once", "low", "high"))
    assert low <= best <= high
    assert metrics["main/gain_over_first"] == 0.0, "no untrained checkpoint solves anything"
    assert (metrics["main/episodes"], metrics["main/checkpoints"]) == (2, 4)
    (sft,) = client.search_runs([experiment], "attributes.run_name LIKE 'sft %'")
    assert metrics["main/loss"] == sft.data.metrics["train/loss"]
    stages = ("demos", "norm_stats", "sft", "eval", "rl", "promote")
    assert all(metrics[f"main/{stage}_s"] > 0 for stage in stages)
    assert {each.dataset.source_type for each in run.inputs.dataset_inputs} == {"lerobot", "simulator"}
    models = [client.get_logged_model(output.model_id).name for output in run.outputs.model_outputs]
    assert sorted(models) == [f"pi0-tiny-step-{name}" for name in ("2", "2-rl-1", "4", "6")]
    assert run.data.tags["about.best"] in ("step-2", "step-2-rl-1")
    about = {key.removeprefix("about."): text for key, text in run.data.tags.items() if key.startswith("about.")}
    assert (about["success"], about["preset"]) == ("0 % (0 to 66 %) of 2", "tiny")
    assert "min-success" in about["promotion"]
    (nested,) = client.search_runs([experiment], "attributes.run_name = 'step-2-rl-1'")
    assert nested.data.tags["about.host"] == run.data.tags["about.host"]


def promotions(store) -> list[str]:
    """Of how many evaluations each promotion's candidate could have been picked."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    return [run.data.tags["gate.chosen_from"] for run in client.search_runs([experiment], "tags.`gate.rows` != ''")]


def test_the_whole_path_and_again(invoke, store, tmp_path):
    command = ["main", "--rl-iterations", "1", "--output", "out", "--overrides", OVERRIDES]
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    runs = tree(store)
    assert {status for _, status, _ in runs} == {"FINISHED"}
    # No untrained checkpoint solves anything, so the first one is as good as any.
    assert [(name, nested) for name, _, nested in runs if nested] == [
        ("main", ["demos", "norm_stats", "sft", "eval", "rl", "promote"]),
        ("eval", ["step-2", "step-4", "step-6"]),
        ("rl", ["from-step-2"]),
        ("from-step-2", ["step-2", "step-2-rl-1"]),
    ]
    check_main(store)
    assert "Wilson" in result.stdout
    assert "Before and after" in result.stdout
    assert "mlflow server" in result.stdout
    assert "workflowType=machine_learning" in result.stdout
    # Three of the sweep, and what rl made of one of them; the start itself was played twice.
    assert promotions(store) == ["4"]

    data = [
        path
        for path in tmp_path.glob("out/[ders]*/**/*")
        if path.suffix in (".parquet", ".safetensors", ".jsonl", ".mp4")
    ]
    written = {path: path.stat().st_mtime_ns for path in data}
    rows = rows_of(tmp_path / "out" / "eval")
    again = invoke(*command)
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in data} == written
    assert rows_of(tmp_path / "out" / "eval") == rows
    assert len(tree(store)) == 2 * len(runs)
    assert promotions(store) == ["4", "4"]  # the same rows again are no chances


def test_a_failing_step_fails_its_run_and_the_parent(invoke, store):
    result = invoke(*WITHOUT_RL, OVERRIDES_WITHOUT_RL + ",sft.lr=1e30,sft.steps=40")
    assert result.exit_code == 1
    statuses = {name: status for name, status, _ in tree(store)}
    assert statuses == {"main": "FAILED", "demos": "FINISHED", "norm_stats": "FINISHED", "sft": "FAILED"}


def test_several_problems_are_shown_at_once(invoke, store):
    result = invoke("main", "--overrides", "sft.lr=-1,eval.episodes=0,env.renderer=pixar")
    assert result.exit_code == 2
    assert result.stderr.count("error ") == 3
    only_error(invoke("main", "--preset", "huge"), "unknown-preset")


def test_inside_an_active_run_it_is_adopted(invoke, store):
    import mlflow

    mlflow.set_tracking_uri(store)
    with mlflow.start_run(run_name="mine") as mine:
        result = invoke(*WITHOUT_RL, OVERRIDES_WITHOUT_RL + ",sft.steps=2,eval.episodes=1")
        assert result.exit_code == 0, result.output
        assert MlflowClient(store).get_run(mine.info.run_id).info.status == "RUNNING"
    assert tree(store, "Default")[0] == ("mine", "FINISHED", ["demos", "norm_stats", "sft", "eval", "promote"])


@pytest.mark.slow
def test_mlflow_run_adopts_the_launchers_run(store, tmp_path):
    output = tmp_path / "out"
    options = [f"output={output}", "rl_iterations=0"]
    command = ["mlflow", "run", str(PROJECT), "--env-manager", "local"]
    command += [word for option in options for word in ("-P", option)]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": store,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    process = subprocess.run(
        [*command, "-P", f"overrides={OVERRIDES_WITHOUT_RL}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    runs = tree(store)
    assert {status for _, status, _ in runs} == {"FINISHED"}
    assert runs[0][0] == "main", "not the name that MLflow made up"
    assert runs[0][2] == ["demos", "norm_stats", "sft", "eval", "promote"]

    broken = subprocess.run(
        [*command, "-P", "overrides=sft.lr=nan"], env=environment, capture_output=True, text=True, check=False
    )
    assert broken.returncode == 1
    assert "sft.lr is nan" in broken.stderr
    assert {status for _, status, _ in tree(store)} == {"FINISHED", "FAILED"}
    assert MlflowClient(store).search_runs(["0"]) == [], "all of it is where `rlinf-isaac` records"
