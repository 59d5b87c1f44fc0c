"""Result directories of RLinf as runs. They are written here; those of the real RLinf: test_ingest_rlinf.py."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from mlflow import MlflowClient
from safetensors.torch import load_file
from support import SMALL_PRESET, only_error, write_scalars

from mlflow_project.cli.ingest import command
from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.engines.rlinf.tensorboard import Scalar
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.media.video import VideoWriter

CONFIG = {"runner": {"task_type": "embodied", "logger": {"experiment_name": "ppo"}}, "actor": {"optim": {"lr": 1e-5}}}


@pytest.fixture
def ingest(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)

    def ingest(source: Path, **options: str):
        words = ["--source", str(source), "--output", str(tmp_path / "output")]
        return CliRunner().invoke(command, words, catch_exceptions=False)

    return ingest


def runs(tmp_path: Path) -> dict:
    """Name -> the newest run of that name."""
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    return {run.info.run_name: run for run in reversed(client.search_runs(experiments))}


def history(tmp_path: Path, name: str, metric: str) -> list[tuple[int, float]]:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    points = client.get_metric_history(runs(tmp_path)[name].info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def event(tag: str, step: int, value: float, time: float = 1e9) -> Scalar:
    return Scalar(tag, step, value, time)


def write_events(root: Path, *events: Scalar, name: str = "1") -> None:
    (root / "tensorboard").mkdir(parents=True, exist_ok=True)
    write_scalars(root / f"tensorboard/events.out.tfevents.{name}", events)
    (root / "tensorboard/config.yaml").write_text(yaml.safe_dump(CONFIG))


@pytest.fixture
def results(tmp_path) -> Path:
    """Three steps of PPO with a checkpoint after the second, a table, and a video."""
    root = tmp_path / "results"
    losses = [event("train/actor/policy_loss", step, 0.5 - step) for step in range(3)]
    write_events(root, *losses, event("eval/success_once", 1, 0.25), event("env/return", 1, float("nan")))
    (root / "metrics.log").write_text("a table")
    weights = root / "ppo/checkpoints/global_step_2/actor/model_state_dict/full_weights.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    (root / "video/eval/seed_0").mkdir(parents=True)
    with VideoWriter(root / "video/eval/seed_0/0.mp4") as video:
        for shade in range(3):
            video.append(np.full((32, 32, 3), shade, np.uint8))
    return root


def test_metrics_config_videos_and_checkpoints(ingest, results, tmp_path):
    assert ingest(results).exit_code == 0
    found = runs(tmp_path)
    assert set(found) == {"rlinf results", "global_step_2"}
    run, checkpoint = found["rlinf results"], found["global_step_2"]
    assert run.info.status == checkpoint.info.status == "FINISHED"
    assert run.data.params["rlinf/actor/optim/lr"] == "1e-05"
    # RLinf counts from 0 where it logs.
    assert history(tmp_path, "rlinf results", "train/actor/policy_loss") == [(1, 0.5), (2, -0.5), (3, -1.5)]
    assert "env/return" not in run.data.metrics
    assert checkpoint.data.tags["mlflow.parentRunId"] == run.info.run_id
    assert checkpoint.data.metrics == {"eval/success_once": 0.25, "train/actor/policy_loss": -0.5}
    assert history(tmp_path, "global_step_2", "eval/success_once") == [(2, 0.25)]
    artifacts = Path(run.info.artifact_uri) / "rlinf"
    assert (artifacts / "video/eval/seed_0/0.mp4").read_bytes() == (results / "video/eval/seed_0/0.mp4").read_bytes()
    assert (artifacts / "metrics.log").is_file()


def test_the_printed_command_makes_a_bundle_with_the_norm_stats_beside_the_weights(
    invoke, small_checkpoints, results, tmp_path
):
    bundle = read_bundle(small_checkpoints / "6")
    checkpoint = results / "ppo/checkpoints/global_step_2"
    torch.save(load_file(bundle.path / "model.safetensors"), checkpoint / "actor/model_state_dict/full_weights.pt")
    stats = checkpoint / bundle.asset_id / "norm_stats.json"
    stats.parent.mkdir()
    stats.write_bytes(bundle.norm_stats_bytes)

    printed = invoke("ingest", "--source", results, "--output", tmp_path / "output").output
    tags = runs(tmp_path)["global_step_2"].data.tags
    assert tags["checkpoint.norm_stats"] == str(stats)
    assert tags["lineage.norm_stats.sha256"] == bytes_digest(bundle.norm_stats_bytes)
    command = tags["mlflow.note.content"].strip()
    assert command in printed
    words = [*shlex.split(command)[1:], "--preset", SMALL_PRESET]
    assert invoke(*words, "--output", tmp_path / "output").exit_code == 0
    (made,) = find_bundles(tmp_path / "output/bundles/ppo").values()
    assert read_bundle(made).norm_stats_bytes == bundle.norm_stats_bytes


def test_where_norm_stats_are_not_known_their_name_is_left_open(ingest, results, tmp_path):
    printed = ingest(results).output
    path = results / "ppo/checkpoints/global_step_2"
    assert f"rlinf-isaac bundle make {path} --norm-stats FILE" in printed
    assert "lineage.norm_stats.sha256" not in runs(tmp_path)["global_step_2"].data.tags


def test_metrics_that_are_logged_per_worker_as_well(ingest, results, tmp_path):
    """With runner.per_worker_log RLinf has a directory more, and the files of single ranks elsewhere."""
    (results / "all").mkdir()
    for file in (results / "tensorboard").iterdir():
        file.rename(results / "all" / file.name)
    (results / "all").rename(results / "tensorboard/all")
    ingest(results)
    assert len(history(tmp_path, "rlinf results", "train/actor/policy_loss")) == 3


@pytest.mark.parametrize("named", ["ppo", "."])
def test_the_directory_meant_is_named_where_another_was_given(ingest, results, named):
    source = results.parent if named == "." else results / named
    result = ingest(source)
    only_error(result, "no-rlinf-results")
    assert str(results) in "".join(result.stderr.split())


def test_the_same_directory_is_recorded_once_and_a_grown_one_anew(ingest, results, tmp_path):
    ingest(results)
    before = runs(tmp_path)
    assert "recorded already" in ingest(results).output
    assert runs(tmp_path).keys() == before.keys()
    write_events(results, event("train/actor/policy_loss", 3, 1.0), name="2")
    assert "recorded already" not in ingest(results).output
    assert history(tmp_path, "rlinf results", "train/actor/policy_loss")[-1] == (4, 1.0)


def test_of_a_step_that_was_repeated_the_last_word_counts(ingest, tmp_path):
    root = tmp_path / "resumed"
    write_events(root, event("loss", 0, 1.0, time=10), event("loss", 1, 2.0, time=20))
    write_events(root, event("loss", 1, 3.0, time=30), name="0-named-before")
    ingest(root)
    assert history(tmp_path, "rlinf resumed", "loss") == [(1, 1.0), (2, 3.0)]


def test_a_cut_off_video_is_a_warning_and_not_logged(ingest, results, tmp_path):
    video = results / "video/eval/seed_0/0.mp4"
    video.write_bytes(video.read_bytes()[:-200])
    result = ingest(results)
    assert result.exit_code == 0
    assert "rlinf-video" in result.stderr
    run = runs(tmp_path)["rlinf results"]
    assert run.data.tags["ingest.broken_videos"] == "0.mp4"
    assert not (Path(run.info.artifact_uri) / "rlinf/video").exists()


@pytest.mark.parametrize(
    "damage", ["no such directory", "no events", "flipped", "no config", "no yaml", "another yaml"]
)
def test_what_is_no_result_directory_is_refused(ingest, results, tmp_path, damage):
    (tmp_path / "mlflow.db").unlink()
    events, config = results / "tensorboard/events.out.tfevents.1", results / "tensorboard/config.yaml"
    source = results
    match damage:
        case "no such directory":
            source = tmp_path / "missing"
        case "no events":
            events.unlink()
        case "flipped":
            events.write_bytes(events.read_bytes().replace(b"policy", b"polizy", 1))
        case "no config":
            config.unlink()
        case "no yaml":
            config.write_text("a: [1")
        case "another yaml":
            config.write_text("runner: 5")
    code = "no-rlinf-results" if damage.startswith("no ") and damage != "no yaml" else "rlinf-results-damaged"
    only_error(ingest(source), code)
    assert not (tmp_path / "mlflow.db").exists()
