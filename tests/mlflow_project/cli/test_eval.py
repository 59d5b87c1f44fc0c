from __future__ import annotations

import shutil
import signal
from dataclasses import replace

import pytest
from mlflow import MlflowClient
from support import SHORT_EVALUATION, kill_when, only_error, rows_of, shown

from mlflow_project.cli._findings import short
from mlflow_project.comparison.traces import trace_name
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.media.video import verify_video


def evaluate(root, *more, output="out", overrides=SHORT_EVALUATION):
    return ["eval", "--ckpt-root", root, "--output", output, "--overrides", overrides, *more]


def runs_of(store):
    client = MlflowClient(store)
    found = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    runs = [client.get_run(run.info.run_id) for run in found]  # a search leaves out the model inputs
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return client, [run for run in runs if run not in children], sorted(children, key=lambda run: run.info.run_name)


def test_a_sweep_is_a_parent_with_one_nested_run_per_checkpoint(
    invoke, store, small_checkpoints, tmp_path, monkeypatch
):
    from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv

    build, built = StackCubeVectorEnv.__init__, []
    monkeypatch.setattr(StackCubeVectorEnv, "__init__", lambda env, *args, **kw: built.append(build(env, *args, **kw)))
    result = invoke(*evaluate(small_checkpoints))
    assert result.exit_code == 0, result.output
    assert len(built) == 1, "one environment for all checkpoints"
    client, (parent,), children = runs_of(store)
    assert [run.info.run_name for run in children] == ["step-2", "step-4", "step-6"]
    bundle = read_bundle(small_checkpoints / "2")
    digest, stats = bytes_digest(bundle.norm_stats_bytes), bundle.path / bundle.asset_id / "norm_stats.json"
    assert f"norm stats   sha256 {digest} (in the checkpoint, {stats} and 2 more)" in result.stdout
    assert {run.data.tags["lineage.norm_stats.sha256"] for run in [parent, *children]} == {digest}
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}

    differing = {
        key
        for key in set().union(*(run.data.params for run in children))
        if len({run.data.params.get(key) for run in children}) > 1
    }
    assert differing == {"checkpoint/step"}
    rows = rows_of(tmp_path / "out")
    for run, step in zip(children, (2, 4, 6), strict=True):
        mine = [row for row in rows if row["checkpoint_step"] == step]
        metrics = run.data.metrics
        assert [row["seed"] for row in mine] == list(range(5000, 5005))
        assert metrics["eval/success_once"] == sum(row["success"] for row in mine) / 5
        assert metrics["eval/success_low"] <= metrics["eval/success_once"] <= metrics["eval/success_high"]
        ends = metrics["eval/success_once"] + metrics["eval/drop_rate"] + metrics["eval/timeout_rate"]
        assert ends == pytest.approx(1)
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"episodes.json", "rollout.mp4", "videos", "checkpoint"} <= files
        assert len(run.inputs.model_inputs) == 1
        assert run.inputs.dataset_inputs
    curve = client.get_metric_history(parent.info.run_id, "sweep/success_once")
    assert [point.step for point in curve] == [2, 4, 6]
    for row in rows:
        for video in (tmp_path / "out").rglob(
            f"{row['checkpoint_step']}-*/videos/episode_{row['seed'] - 5000:03d}.mp4"
        ):
            assert verify_video(video, row["length"] + 1).width == 64
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 3 * 2
    for run in children:
        table = client.load_table(run.info.experiment_id, "episodes.json", [run.info.run_id])
        films = list(table["video"].dropna())
        assert len(films) == 2, "chosen when all had played, and logged to the runs that had ended"
        logged = {file.path for folder in (None, "videos") for file in client.list_artifacts(run.info.run_id, folder)}
        traces = {trace_name(film) for film in films}
        assert {path for path in logged if path.endswith((".mp4", ".mjs"))} == {*films, *traces}
        assert films[0] == "rollout.mp4", "the first one, and only there"


def test_average_and_raw_weights_have_names_that_differ(invoke, store, small_checkpoints, tmp_path):
    for folder in ("checkpoints", "checkpoints-raw"):
        shutil.copytree(small_checkpoints / "2", tmp_path / "run" / folder / "2")
        assert invoke(*evaluate(tmp_path / "run" / folder)).exit_code == 0
    _, parents, _ = runs_of(store)
    assert sorted(run.info.run_name for run in parents) == ["eval run raw x 1", "eval run x 1"]


def test_rows_are_the_same_in_a_sweep_one_by_one_repeated_and_until_decided(invoke, small_checkpoints, tmp_path):
    assert invoke(*evaluate(small_checkpoints, output="sweep")).exit_code == 0
    assert invoke(*evaluate(small_checkpoints, output="again")).exit_code == 0
    for step in (6, 2, 4):
        assert invoke(*evaluate(small_checkpoints, "--ckpt-steps", step, output="single")).exit_code == 0
    rows = rows_of(tmp_path / "sweep")
    assert len(rows) == 15
    assert rows_of(tmp_path / "again") == rows
    assert rows_of(tmp_path / "single") == rows
    # Within its budget; two environments: an odd batch.
    result = invoke(*evaluate(small_checkpoints, "--until-decided", "--batch", 3))
    assert result.exit_code == 0, result.output
    assert "No clear winner after 5 episodes each" in result.stdout
    assert rows_of(tmp_path / "out") == rows


@pytest.mark.parametrize("steps", ["2 6", " 2, 6 "])
def test_steps_are_separated_by_commas_or_spaces(invoke, small_checkpoints, tmp_path, steps):
    assert invoke(*evaluate(small_checkpoints, "--ckpt-steps", steps, "--episodes", 1)).exit_code == 0
    assert [row["checkpoint_step"] for row in rows_of(tmp_path / "out")] == [2, 6]


def test_more_episodes_keep_the_rows_there_are(invoke, small_checkpoints, tmp_path):
    assert invoke(*evaluate(small_checkpoints, "--ckpt-steps", 2, "--episodes", 3)).exit_code == 0
    before = rows_of(tmp_path / "out")
    (journal,) = (tmp_path / "out").rglob("episodes.jsonl")
    assert invoke(*evaluate(small_checkpoints, "--ckpt-steps", 2, "--episodes", 5)).exit_code == 0
    assert rows_of(tmp_path / "out")[:3] == before
    assert len(journal.read_text().splitlines()) == 5


def test_killed_and_started_again_gives_the_same_rows(invoke, start, store, small_checkpoints, tmp_path):
    arguments = evaluate(small_checkpoints, "--episodes", 10, overrides="env.max_episode_steps=64")
    process = start(*arguments)
    kill_when(process, shown("eval step-4", 2))
    survived = rows_of(tmp_path / "out")
    assert 10 < len(survived) < 20
    assert invoke(*arguments).exit_code == 0
    resumed = rows_of(tmp_path / "out")
    assert len(resumed) == 30
    assert [row for row in resumed if row in survived] == survived

    shutil.rmtree(tmp_path / "out")
    assert invoke(*arguments).exit_code == 0, "undisturbed"
    assert rows_of(tmp_path / "out") == resumed


def test_terminated_leaves_no_run_running(start, store, small_checkpoints):
    process = start(*evaluate(small_checkpoints, "--episodes", 10, overrides="env.max_episode_steps=64"))
    kill_when(process, shown("eval step-4", 2), signal.SIGTERM)
    assert process.returncode == 143
    _, (parent,), children = runs_of(store)
    assert parent.info.status == "KILLED"
    assert [run.info.status for run in children] == ["FINISHED", "KILLED"]


def test_until_decided_stops_as_soon_as_the_best_is_separated(invoke, store, small_checkpoints, tmp_path):
    """One of the checkpoints is given the successes that an untrained policy never has; they are on disk already."""
    arguments = evaluate(small_checkpoints, "--ckpt-steps", "2,4", "--episodes", 12)
    assert invoke(*arguments).exit_code == 0
    (journal,) = (tmp_path / "out").rglob("4-*/episodes.jsonl")
    journal.write_text(
        journal.read_text().replace('"success": false, "outcome": "timeout"', '"success": true, "outcome": "success"')
    )
    result = invoke(*arguments, "--until-decided", "--batch", 4)
    assert result.exit_code == 0, result.output
    assert "10 points in under 1 % and 20 points in under 1 % of cases" in result.stderr
    assert "Clear winner after 8 episodes each: step-4 (100 %) is better" in result.stdout
    client, parents, children = runs_of(store)
    assert sorted(run.data.metrics["eval/episodes"] for run in children) == [8, 8, 12, 12]
    parent = next(run for run in parents if "until_decided/e_value" in run.data.metrics)
    history = client.get_metric_history(parent.info.run_id, "until_decided/e_value")
    assert [(point.step, round(point.value, 3)) for point in history] == [(4, 6.2), (8, round(511 / 9, 3))]
    assert parent.inputs.dataset_inputs[0].dataset.name == "stack2 x up to 12 episodes"


def test_until_decided_killed_and_started_again_goes_on(invoke, start, store, small_checkpoints, tmp_path):
    arguments = evaluate(
        small_checkpoints, "--ckpt-steps", "2,4", "--episodes", 10, overrides="env.max_episode_steps=64"
    )
    arguments += ["--until-decided", "--batch", "5"]
    process = start(*arguments)
    kill_when(process, shown("eval step-2", 6))  # in the second batch of five
    survived = rows_of(tmp_path / "out")
    assert 10 < len(survived) < 20
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    resumed = rows_of(tmp_path / "out")
    assert len(resumed) == 20
    assert [row for row in resumed if row in survived] == survived
    assert "No clear winner after 10 episodes each" in result.stdout


@pytest.mark.parametrize(
    ("more", "code"), [(["--batch", "0"], "bad-batch"), (["--ckpt-steps", "2"], "nothing-to-decide")]
)
def test_until_decided_needs_a_batch_and_a_choice(invoke, small_checkpoints, tmp_path, more, code):
    only_error(invoke(*evaluate(small_checkpoints, "--until-decided", *more)), code)
    assert not (tmp_path / "out").exists()


def test_missing_steps_are_named_with_the_nearest(invoke, small_checkpoints, store):
    result = invoke(*evaluate(small_checkpoints, "--ckpt-steps", "2,5,25000"))
    assert result.exit_code == 2
    assert result.stderr.count("missing-step") == 2
    assert "no checkpoint of step 5" in result.stderr
    assert MlflowClient(store).get_experiment_by_name("rlinf-isaac") is None


def test_an_empty_root_is_refused(invoke, tmp_path):
    (tmp_path / "empty").mkdir()
    only_error(invoke(*evaluate(tmp_path / "empty")), "empty-ckpt-root")
    only_error(invoke(*evaluate(tmp_path / "nowhere")), "missing-ckpt-root")


@pytest.mark.parametrize(
    ("overrides", "code"),
    [("sft.lr=1", "not-read"), ("model.action_horizon=9", "not-overridable"), ("eval.episods=3", "unknown-key")],
)
def test_overrides_that_make_no_sense_here_are_refused(invoke, small_checkpoints, overrides, code):
    only_error(invoke(*evaluate(small_checkpoints, overrides=overrides)), code)


def test_another_renderer_than_the_training_data_is_refused(invoke, store, small_checkpoints, tmp_path):
    result = invoke(*evaluate(small_checkpoints, "--renderer", "rays"))
    assert result.exit_code == 2
    assert result.stderr.count("env-mismatch") == 1
    assert f"{small_checkpoints}/{{2,4,6}} was" in result.stderr.replace("\n", "")
    assert rows_of(tmp_path / "out") == []

    arguments = evaluate(small_checkpoints, "--renderer", "rays", "--ckpt-steps", 2, "--episodes", 1)
    assert invoke(*arguments, "--allow-mismatch", "true").exit_code == 0
    _, parents, _ = runs_of(store)
    assert sorted(run.data.tags.get("allow_mismatch", "false") for run in parents) == ["false", "true"]


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("policy.action_chunk=4", "action-chunk-mismatch"),
        ("policy.state_layout=proprio", "state-layout-mismatch"),
        ("env.image_size=32", "env-mismatch"),
        ("env.task=stack3", "prompt-mismatch"),
    ],
)
def test_what_the_weights_were_not_trained_with_is_refused(invoke, store, small_checkpoints, tmp_path, override, code):
    overrides = f"{SHORT_EVALUATION},{override}"
    result = invoke(*evaluate(small_checkpoints, "--ckpt-steps", 2, overrides=overrides))
    assert result.exit_code == 2
    assert code in result.stderr
    assert not (tmp_path / "out").exists()
    assert MlflowClient(store).get_experiment_by_name("rlinf-isaac") is None


def test_other_norm_stats_are_refused_or_tagged(invoke, store, small_checkpoints, tmp_path):
    from rlinf_isaac.data.norm_stats import from_json

    bundle = read_bundle(small_checkpoints / "2")
    stats = from_json(bundle.norm_stats_bytes)
    other = tmp_path / "norm_stats.json"
    replace(stats, state=replace(stats.state, mean=stats.state.mean + 0.1)).save(other)
    arguments = evaluate(small_checkpoints, "--ckpt-steps", "2,4", "--episodes", 1, "--norm-stats", other)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stderr.count("norm-stats-mismatch") == 1
    paths = f"{small_checkpoints}/{{2,4}} was trained"
    digests = (short(bytes_digest(stats)) for stats in (other.read_bytes(), bundle.norm_stats_bytes))
    for part in (other, paths, *digests):
        assert str(part) in result.stderr.replace("\n", "")

    assert invoke(*evaluate(small_checkpoints, "--ckpt-steps", "2,4", "--episodes", 1)).exit_code == 0
    own = rows_of(tmp_path / "out")
    result = invoke(*arguments, "--allow-mismatch")
    assert result.exit_code == 0, result.output
    assert "warning norm-stats-mismatch" in result.stderr
    assert f"sha256 {bytes_digest(other.read_bytes())} (given, {other})" in result.stdout
    _, parents, children = runs_of(store)
    tagged = [run for run in [*parents, *children] if run.data.tags.get("allow_mismatch") == "true"]
    assert sorted(run.info.run_name.split()[0] for run in tagged) == ["eval", "step-2", "step-4"]
    assert all(str(other) in run.data.tags["mismatch.norm-stats-mismatch"] for run in tagged)
    assert len(rows_of(tmp_path / "out")) == 2 * len(own), "rows of other settings are kept apart"


def test_norm_stats_of_equal_bytes_are_no_mismatch(invoke, small_checkpoints, tmp_path):
    copy = tmp_path / "norm_stats.json"
    copy.write_bytes(read_bundle(small_checkpoints / "2").norm_stats_bytes)
    result = invoke(*evaluate(small_checkpoints, "--ckpt-steps", 2, "--episodes", 1, "--norm-stats", copy))
    assert result.exit_code == 0, result.output


def test_norm_stats_of_another_size_cannot_be_allowed(invoke, small_checkpoints):
    overrides = f"{SHORT_EVALUATION},env.task=stack3"
    result = invoke(*evaluate(small_checkpoints, "--ckpt-steps", 2, "--allow-mismatch", overrides=overrides))
    assert result.exit_code == 2
    assert "norm-stats-dim" in result.stderr


def test_a_flipped_byte_is_found_before_the_environment_is_built(invoke, small_checkpoints, tmp_path):
    root = tmp_path / "checkpoints"
    shutil.copytree(small_checkpoints, root)
    weights = root / "4" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    result = invoke(*evaluate(root))
    assert result.exit_code == 2
    assert str(weights.name) in result.stderr
