"""Two tasks of two robots, from the files that describe them to a checkpoint that is served."""

from __future__ import annotations

import shutil

import pytest
from mlflow import MlflowClient
from support import SMALL, rows_of
from walks import write_task

from rlinf_isaac.checkpoint.bundle import read_bundle

TASKS = ("walk/flat", "walk/deep")
OVERRIDES = ",".join([*SMALL, "eval.episodes=2", "eval.videos=1", "norm_stats.batch_size=1"])


def runs(store):
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    return client.search_runs([experiment], order_by=["attributes.start_time"])


def test_the_whole_path_and_again(invoke, store, tmp_path, walks):
    command = ["main", "--task", ",".join(map(str, walks)), "--output", "out", "--overrides", OVERRIDES]
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    found = runs(store)
    assert {run.info.status for run in found} == {"FINISHED"}
    names = {run.info.run_id: run.info.run_name for run in found}
    nested = [
        (names[parent].split()[0], run.info.run_name.split()[0])
        for run in found
        if (parent := run.data.tags.get("mlflow.parentRunId"))
    ]
    assert nested == [
        ("main", "demos"),
        ("demos", "demos"),
        ("demos", "demos"),
        ("main", "sft"),
        ("main", "eval"),
        ("eval", "step-2"),
        ("eval", "step-4"),
        ("eval", "step-6"),
        ("main", "promote"),
    ]
    (step,) = (run for run in found if run.info.run_name == "step-4")
    for task in TASKS:
        assert f"eval/task/{task}/success_once" in step.data.metrics
    assert step.data.metrics["eval/episodes"] == 4
    assert "over 2 tasks" in result.stdout.replace("\n", " ")
    assert "Success in each task" in result.stdout
    assert "Reinforcement learning is left out" in result.stdout
    assert "lineage" not in " ".join(line for line in result.stdout.splitlines() if "refuse" in line)
    client = MlflowClient(store)
    table = client.load_table(step.info.experiment_id, "episodes.json", [step.info.run_id])
    films = set(table["video"].dropna())
    assert films == {"rollout.mp4", "videos/walk/flat/episode_000.mp4"}, "one of each task, the first at the root"
    places = (None, "videos/walk/deep", "videos/walk/flat")
    paths = {each.path for place in places for each in client.list_artifacts(step.info.run_id, place)}
    assert {path for path in paths if path.endswith(".mp4")} == films

    rows = rows_of(tmp_path / "out" / "eval")
    assert {(row["task"], row["seed"]) for row in rows} == {(task, 5000 + n) for task in TASKS for n in range(2)}
    again = invoke(*command)
    assert again.exit_code == 0, again.output
    assert rows_of(tmp_path / "out" / "eval") == rows


def test_datasets_find_their_tasks_and_others_are_refused(invoke, walks, walk_datasets, tmp_path):
    command = ["doctor", "sft", "--task", ",".join(map(str, walks))]

    def check(datasets, *words):
        own = ["--dataset", ",".join(map(str, datasets)), "--overrides", "norm_stats.batch_size=1"]
        return invoke(*command, *own, *words)

    flat, deep = walk_datasets
    for order in ((flat, deep), (deep, flat)):
        assert check(order).exit_code == 0, check(order).output
    assert "suite-datasets" in check([flat]).output
    unknown = shutil.copytree(flat, tmp_path / "unknown")
    (unknown / "meta" / "provenance.json").unlink()
    assert check((unknown, deep)).exit_code == 0
    wrong = check((deep, unknown))
    assert "suite-datasets" in wrong.output
    assert "recorded for walk/deep" in wrong.output
    assert "suite-norm-stats" in check((flat, deep), "--norm-stats", "x.json").output
    played = "norm_stats.batch_size=1,sft.eval_interval=400"
    assert "suite-played" in check((flat, deep), "--overrides", played).output
    assert "suite-engine" in check((flat, deep), "--engine", "rlinf").output


def test_what_is_for_one_task_says_so(invoke, walks, walk_datasets, walk_checkpoints, tmp_path):
    both = ",".join(map(str, walks))
    assert "suite-one-task" in invoke("norm_stats", "--task", both, "--dataset", walk_datasets[0]).output
    assert "suite-one-task" in invoke("doctor", "--task", both, "--dataset", walk_datasets[0]).output
    refused = invoke("doctor", "rl", "--ckpt-root", walk_checkpoints, "--ckpt-steps", "2")
    assert "suite-one-task" in refused.output
    one = invoke(
        "doctor",
        "rl",
        "--ckpt-root",
        walk_checkpoints,
        "--ckpt-steps",
        "2",
        "--task",
        "walk/deep",
        "--overrides",
        "rl.workers=1",
    )
    assert "suite-one-task" not in one.output
    other = invoke("doctor", "eval", "--ckpt-root", walk_checkpoints, "--norm-stats", tmp_path / "x.json")
    assert "suite-norm-stats" in other.output


def test_some_of_the_tasks_are_evaluated(invoke, store, walk_checkpoints, tmp_path):
    result = invoke(
        "eval",
        "--ckpt-root",
        walk_checkpoints,
        "--ckpt-steps",
        "2,6",
        "--task",
        "walk/deep",
        "--output",
        tmp_path / "out",
        "--episodes",
        "2",
        "--num-envs",
        "2",
        "--videos",
        "0",
    )
    assert result.exit_code == 0, result.output
    assert {row["task"] for row in rows_of(tmp_path / "out")} == {"walk/deep"}


def test_another_task_than_those_of_the_training_is_refused(invoke, walk_checkpoints, tmp_path):
    other = write_task(tmp_path, "walk/third", 3, hand=False, prompt="go home", hz=20, robot="diver", delta="2,-1")
    result = invoke("doctor", "eval", "--ckpt-root", walk_checkpoints, "--ckpt-steps", "2", "--task", other)
    assert result.exit_code == 2
    assert "suite-one-task" in result.output
    assert "walk/flat, walk/deep" in result.output


def test_a_checkpoint_that_does_not_share_norm_stats_is_served_for_one_task(walk_checkpoints):
    from mlflow_project.serving.policy import ServedPolicy
    from rlinf_isaac.ground.errors import InvalidJob
    from rlinf_isaac.jobs.serving import plan
    from rlinf_isaac.preflight import Findings

    bundle = read_bundle(walk_checkpoints / "6")
    with pytest.raises(InvalidJob, match="several tasks"):
        plan(Findings(), bundle, "cpu")
    view, config = plan(Findings(), bundle, "cpu", task="walk/deep")
    metadata = ServedPolicy(view, config).metadata()
    assert (metadata["task"], metadata["prompts"]) == ("walk/deep", ["go home"])
    assert metadata["checkpoint"] == bundle.digest


def test_suites_are_listed_and_shown(invoke):
    assert "metaworld/mt10" in invoke("task", "list").output
    shown = invoke("task", "show", "metaworld/mt10").output
    assert "statistics   shared" in shown
    assert shown.count("metaworld/") == 11


def test_a_champion_of_several_tasks_is_judged_on_the_seeds_of_its_challenger(
    invoke, store, walk_checkpoints, tmp_path
):
    from mlflow_project.serving.resolve import resolve_model

    def play(step, first_seed):
        words = ["--output", tmp_path / "out", "--episodes", "3", "--num-envs", "2", "--videos", "1"]
        result = invoke(
            "eval", "--ckpt-root", walk_checkpoints, "--ckpt-steps", step, "--first-seed", first_seed, *words
        )
        assert result.exit_code == 0, result.output

    def promote(step, *words):
        return invoke("promote", walk_checkpoints / step, "--name", "walks", "--min-success", "0",
                      "--output", tmp_path / "out", *words)  # fmt: skip

    play("2", "5000")
    strict = promote("2", "--min-success", "0.9", "--every-task")
    assert strict.exit_code == 3
    assert all(f"{task}: " in strict.output.replace("\n", "") for task in TASKS)
    first = promote("2")
    assert first.exit_code == 0, first.output
    assert resolve_model("models:/walks@champion").digest == read_bundle(walk_checkpoints / "2").digest
    play("6", "7000")
    second = promote("6", "--require", "not-worse", "--margin", "1", "--every-task")
    assert "evaluated on the candidate's seeds" in second.output
    rows = {(row["checkpoint_step"], row["task"], row["seed"]) for row in rows_of(tmp_path / "out")}
    assert {(2, task, 7000 + n) for task in TASKS for n in range(3)} <= rows
    (judged,) = (run for run in runs(store) if run.info.run_name.startswith("promote step-6 "))
    assert "on 6 seeds" in judged.data.tags["gate.champion"]
    assert "no paired episodes" not in second.output


def test_one_task_of_several_is_trained_further(invoke, store, walk_checkpoints, tmp_path):
    """Reinforcement learning takes the norm stats and the facts of that task, and its checkpoints are of it alone."""
    from support import SMALL_RL

    own = ",".join(each for each in SMALL_RL if not each.startswith("env.max_episode_steps"))
    words = ["--ckpt-steps", "2", "--task", "walk/deep", "--output", tmp_path / "out", "--eval-episodes", "2"]
    result = invoke("rl", "--ckpt-root", walk_checkpoints, *words, "--overrides", own)
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "out").glob("rl/*/checkpoints/1")
    start, made = read_bundle(walk_checkpoints / "2"), read_bundle(path)
    assert "suite" not in made.job
    assert (made.job["task"]["name"], made.asset_id) == ("walk/deep", "diver")
    assert made.norm_stats_bytes == start.further_norm_stats["diver"]
    assert made.lineage["parent"] == start.digest
    played = invoke("eval", "--ckpt-root", path.parent, "--output", tmp_path / "out", "--episodes", "2",
                    "--num-envs", "2", "--videos", "0")  # fmt: skip
    assert played.exit_code == 0, played.output
