from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import SETTINGS

from mlflow_project.comparison.evaluations import read_evaluations
from mlflow_project.lineage.provenance import evaluation_dataset
from mlflow_project.recorders.sft_recorder import SftRecorder
from mlflow_project.recorders.sweep_recorder import SweepRecorder
from mlflow_project.tracking import ui
from mlflow_project.tracking.runs import tracked_run
from mlflow_project.tracking.sync import sync
from rlinf_isaac.ground.events import EvaluationFinished, EvaluationStarted
from rlinf_isaac.stats.rates import wilson_interval

DATASET = evaluation_dataset({"task": "stack2", "episodes": 5, "first_seed": 5000, "policy_seed": 0})
PARAMS = {"env": {"task": "stack2"}, "eval": {"episodes": 5}}


def nested_ids(run, recorder, step):
    (found,) = (each.evaluation for each in recorder.comparison.standings if each.evaluation.step == step)
    return run.uploader.ids(found.run.removeprefix("{{run:").removesuffix("}}"))


def record_sweep(events, **options):
    with tracked_run("eval", output=Path("out"), name="sweep") as run:
        recorder = SweepRecorder(run.recorder, params=PARAMS, model_name="pi0-tiny", dataset=DATASET, **options)
        for event in events:
            recorder(event)
    return run, recorder


def test_each_checkpoint_is_a_nested_run_that_differs_in_nothing_else(store, content, evaluation_events):
    record_sweep(evaluation_events)
    runs = content(store).runs
    first, second = runs["step-400"], runs["step-800"]
    assert (first["parent"], second["parent"]) == ("sweep", "sweep")
    different = {key for key in first["params"] if first["params"][key] != second["params"][key]}
    assert different == {"checkpoint/step"}
    assert first["params"]["cfg/env/task"] == "stack2"
    assert [name for name, _ in first["artifacts"]] == [name for name, _ in second["artifacts"]]
    assert first["datasets"] == second["datasets"] == [(DATASET.name, DATASET.digest)]


def test_runs_say_what_simulated(store, content, evaluation_events):
    events = [
        replace(event, settings=SETTINGS) if isinstance(event, EvaluationStarted) else event
        for event in evaluation_events
    ]
    record_sweep(events)
    for run in ("sweep", "step-400"):
        tags = content(store).runs[run]["tags"]
        assert {key: value for key, value in tags.items() if key.startswith("sim.")} == {
            "sim.backend": "mujoco-4.0.0",
            "sim.assets": "a" * 64,
            "sim.prompt": "Stack.",
        }
        assert tags["env.findings"] == "not checked"


def test_the_metrics_of_a_checkpoint(store, content, evaluation_events):
    record_sweep(evaluation_events)
    metrics = {key: rows[0] for key, rows in content(store).runs["step-800"]["metrics"].items()}
    low, high = wilson_interval(2, 5)
    assert {key: value for key, (_, _, value) in metrics.items()} == pytest.approx(
        {
            "eval/success_once": 0.4,
            "eval/success_low": low,
            "eval/success_high": high,
            "eval/episodes": 5,
            "eval/return_mean": 0.4,
            "eval/episode_length_mean": 102,
            "eval/drop_rate": 0.2,
            "eval/timeout_rate": 0.4,
            "eval/subtask/grasp_1": 1.0,
            "eval/subtask/stack_1": 0.4,
        }
    )
    assert {step for step, _, _ in metrics.values()} == {800}


def test_videos_are_numbered_by_seed_and_the_first_lies_at_the_root(store, content, evaluation_events):
    record_sweep(evaluation_events)
    files = dict(content(store).runs["step-400"]["artifacts"])
    assert {name: size for name, size in files.items() if name.endswith(".mp4")} == {
        "rollout.mp4": 40001,
        "videos/episode_003.mp4": 40003,
    }


def test_a_real_video_has_an_animated_image_at_the_number_of_its_episode(store, content, evaluation_events):
    import numpy as np

    from rlinf_isaac.ground.events import VideoSaved
    from rlinf_isaac.media.video import VideoWriter

    for event in evaluation_events:
        if isinstance(event, VideoSaved):
            with VideoWriter(event.path) as video:
                for number in range(10):
                    video.append(np.full((32, 64, 3), 20 * number, dtype=np.uint8))
    record_sweep(evaluation_events)
    run = content(store).runs["step-800"]
    images = [name for name, _ in run["artifacts"] if name.startswith("images/")]
    assert {name.partition("+timestamp")[0] for name in images} == {"images/rollout+step+1", "images/rollout+step+3"}
    assert len(images) == 4
    assert run["tags"]["mlflow.loggedImages"] == "True"


def test_the_episode_table_is_one_mlflow_reads(store, evaluation_events):
    run, recorder = record_sweep(evaluation_events)
    nested = nested_ids(run, recorder, 400)
    table = MlflowClient(store).load_table(nested[1], "episodes.json", [nested[0]])
    assert list(table["seed"]) == [5000, 5001, 5002, 5003, 5004]
    assert list(table["success"]) == [True, False, False, False, False]
    assert (table["video"][1], table["video"][3]) == ("rollout.mp4", "videos/episode_003.mp4")
    assert "subtask/stack_1" in table.columns


def test_the_parent_compares(store, content, evaluation_events):
    run, recorder = record_sweep(evaluation_events)
    assert run.outcome.refused == ()
    parent = content(store).runs["sweep"]
    assert [(step, value) for step, _, value in parent["metrics"]["sweep/success_once"]] == [(400, 0.2), (800, 0.4)]
    assert parent["tags"]["best.checkpoint.step"] == "800"
    assert parent["tags"]["best.checkpoint.sha256"] == recorder.comparison.standings[0].evaluation.checkpoint
    rows = parent["tags"]["mlflow.note.content"].splitlines()[4:]
    assert [row.split("](")[0] for row in rows[:2]] == ["| 1-2 | [step-800", "| 1-2 | [step-400"]
    assert "/runs/<step-800>)" in rows[0]
    assert "40.0 % | 11.8 % to 76.9 % | 5 | 1 | 2 | 0.40 | 102.0 |" in rows[0]
    names = {"comparison.html", "pairs.json", "paired_episodes.json"}
    assert names <= {name for name, _ in parent["artifacts"]}


def test_the_page_names_the_runs_by_mlflows_ids(store, evaluation_events):
    run, recorder = record_sweep(evaluation_events)
    run_id, experiment_id = run.ids()
    client = MlflowClient(store)
    page = Path(client.download_artifacts(run_id, "comparison.html")).read_text()
    for step in (400, 800):
        assert f'data-run="{nested_ids(run, recorder, step)[0]}"' in page
    assert "{{" not in page
    paired = client.load_table(experiment_id, "paired_episodes.json", [run_id])
    assert list(paired.columns[:3]) == ["seed", "step-800", "step-400"]
    assert list(paired["disagree"]) == [False, True, False, False, False]
    pairs = client.load_table(experiment_id, "pairs.json", [run_id])
    assert (pairs["only first solved"][0], pairs["only second solved"][0]) == (1, 0)


def test_what_is_recorded_is_what_is_read_back(store, evaluation_events):
    run, recorder = record_sweep(evaluation_events)
    run_id, experiment_id = run.ids()
    read = {each.step: each for each in read_evaluations(MlflowClient(store), [run_id])}
    for standing in recorder.comparison.standings:
        recorded, found = standing.evaluation, read[standing.evaluation.step]
        for name in ("name", "step", "checkpoint", "rows", "settings"):
            assert getattr(found, name) == getattr(recorded, name)
        assert (found.sweep, found.experiment) == (run_id, experiment_id)


def test_the_view_of_the_sweep_is_saved_where_its_link_looks(store, evaluation_events):
    run, _ = record_sweep(evaluation_events)
    run_id, experiment_id = run.ids()
    link = ui.comparison_link("http://127.0.0.1:5000", experiment_id, run_id)
    tags = MlflowClient(store).get_experiment(experiment_id).tags
    key = link.rpartition("viewStateShareKey=")[2]
    assert run_id in tags[f"mlflow.sharedViewState.{key}"]
    assert "{{" not in tags[f"mlflow.sharedViewState.{key}"]


def test_a_known_checkpoint_is_the_model_its_training_made(store, content, sft_events, evaluation_events):
    with tracked_run("sft", output=Path("out")) as training:
        recorder = SftRecorder(training.recorder, model_name="pi0-tiny")
        for event in sft_events:
            recorder(event)
    record_sweep(evaluation_events)
    found = content(store)
    assert [(model["name"], model["source"]) for model in found.models] == [
        ("pi0-tiny-step-400", "sft"),
        ("pi0-tiny-step-800", "sft"),
    ]
    assert found.runs["step-800"]["model inputs"] == ["pi0-tiny-step-800"]
    kept = [name for run in found.runs.values() for name, _ in run["artifacts"] if name.endswith("model.safetensors")]
    assert sorted(kept) == ["checkpoints/400/model.safetensors", "checkpoints/800/model.safetensors"], "once"
    linked = {key: (value, digest) for key, _, value, digest in found.models[1]["metrics"]}
    assert linked["eval/success_once"] == (0.4, DATASET.digest)


def test_models_can_be_ranked_on_the_dataset(store, evaluation_events):
    run, _ = record_sweep(evaluation_events)
    order = {"field_name": "metrics.eval/success_once", "ascending": False}
    order |= {"dataset_name": DATASET.name, "dataset_digest": DATASET.digest}
    ranked = MlflowClient(store).search_logged_models([run.ids()[1]], order_by=[order])
    assert [model.name for model in ranked] == ["pi0-tiny-step-800", "pi0-tiny-step-400"]


def test_a_sweep_cut_short_keeps_what_is_finished(store, content, evaluation_events):
    events = evaluation_events[:-1]
    assert not isinstance(events[-1], EvaluationFinished)

    def work():
        with tracked_run("eval", output=Path("out"), name="sweep") as run:
            recorder = SweepRecorder(run.recorder, params=PARAMS, model_name="pi0-tiny", dataset=DATASET)
            for event in events:
                recorder(event)
            raise RuntimeError("the simulator died")

    with pytest.raises(RuntimeError):
        work()
    runs = content(store).runs
    assert {name: run["status"] for name, run in runs.items()} == {
        "sweep": "FAILED",
        "step-400": "FINISHED",
        "step-800": "FAILED",
    }
    assert "step-400" in runs["sweep"]["tags"]["mlflow.note.content"]


def test_through_a_server_and_its_death_everything_arrives_once(server, content, monkeypatch, evaluation_events):
    """The server dies in the middle of the sweep; the sweep ends well; `sync` brings the rest."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "sweep over http")
    monkeypatch.setattr("mlflow_project.tracking.runs.PATIENCE_S", 0.1)
    with tracked_run("eval", output=Path("out"), name="sweep") as run:
        recorder = SweepRecorder(run.recorder, params=PARAMS, model_name="pi0-tiny", dataset=DATASET)
        for event in evaluation_events:
            recorder(event)
            if isinstance(event, EvaluationFinished) and event.step == 400:
                assert run.ids() is not None
                server.kill()
    assert run.outcome.pending > 0
    server.start()
    assert sync(Path("out/journal")).pending == 0
    runs = content(server.uri, "sweep over http").runs
    assert {name: run["status"] for name, run in runs.items()} == dict.fromkeys(
        ("sweep", "step-400", "step-800"), "FINISHED"
    )
    assert [name for name, _ in runs["step-400"]["artifacts"]] == [name for name, _ in runs["step-800"]["artifacts"]]
