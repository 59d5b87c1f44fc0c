"""`ingest` of what RLinf's own runners wrote (`stock_rlinf`): nothing of this project started or recorded them."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rlinf_support import ray_cluster, run_stock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# One worker of pytest-xdist plays them all (--dist loadgroup): RLinf's runners are started once.
pytestmark = [pytest.mark.rlinf, pytest.mark.xdist_group("stock_rlinf")]

CHECKPOINTS = [2, 3]  # save_interval 2, and the last


@pytest.fixture(scope="module")
def stock(tmp_path_factory) -> Path:
    """``embodied`` (PPO, with evaluations, checkpoints and videos) and ``embodied_eval``, each a log_path."""
    root = tmp_path_factory.mktemp("stock")
    with ray_cluster() as environment:
        for task in ("embodied", "embodied_eval"):
            run_stock(task, root / task, environment | {"RLINF_EXT_MODULE": "stock_rlinf"})
    return root


@pytest.fixture(params=["embodied", "embodied_eval"])
def results(request, stock, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(stock / request.param, tmp_path / request.param))


def logged(directory: Path, shift: int) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself shows of a run, `shift` steps later; what is no number is no point of a curve."""
    board = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    curves = {tag: [(each.step + shift, each.value) for each in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    finite = {tag: [point for point in curve if math.isfinite(point[1])] for tag, curve in curves.items()}
    return {tag: curve for tag, curve in finite.items() if curve}


def videos(directory: Path) -> dict[str, bytes]:
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*.mp4")}


def test_metrics_videos_and_checkpoints_are_reproduced(invoke, store, results, tmp_path):
    result = invoke("ingest", "--source", results, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    client = MlflowClient(store)
    (experiment,) = (each.experiment_id for each in client.search_experiments() if each.name == "rlinf-isaac")
    found = client.search_runs([experiment])
    (run,) = (each for each in found if "mlflow.parentRunId" not in each.data.tags)
    assert {each.info.status for each in found} == {"FINISHED"}

    # Every name, value and step, global as in the names of checkpoints.
    trained = results.name == "embodied"
    expected = logged(results, shift=1 if trained else 0)
    assert {"eval/success_once", "eval/num_trajectories"} <= expected.keys()
    assert not trained or {"train/actor/policy_loss", "env/return", "time/step"} <= expected.keys()
    history = {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    assert {name: sorted(points) for name, points in history.items()} == expected

    artifacts = Path(run.info.artifact_uri) / "rlinf"
    assert videos(artifacts) == videos(results)
    # Of three evaluations of two rollout epochs each, and as many in training; or of one evaluation.
    assert len(videos(results)) == (12 if trained else 2)
    assert (artifacts / "tensorboard/config.yaml").read_bytes() == (results / "tensorboard/config.yaml").read_bytes()
    assert run.data.params["rlinf/env/eval/max_episode_steps"] == "8"

    nested = {each.info.run_name: each for each in found if each.info.run_id != run.info.run_id}
    assert list(sorted(nested)) == ([f"global_step_{step}" for step in CHECKPOINTS] if trained else [])
    for step in CHECKPOINTS if trained else []:
        each = nested[f"global_step_{step}"]
        path = results / f"noise/checkpoints/global_step_{step}"
        assert each.data.tags["mlflow.parentRunId"] == run.info.run_id
        assert each.data.tags["checkpoint.path"] == str(path)
        assert each.data.metrics == {name: dict(curve)[step] for name, curve in expected.items() if step in dict(curve)}
        assert f"rlinf-isaac bundle make {path} --norm-stats FILE" in result.output

    assert "recorded already" in invoke("ingest", "--source", results, "--output", tmp_path / "out").output
    assert len(client.search_runs([experiment])) == len(found)


def test_a_directory_that_has_grown_is_recorded_anew(invoke, store, stock, tmp_path):
    """The training as it was before its last step, then whole."""
    results = Path(shutil.copytree(stock / "embodied", tmp_path / "embodied"))
    (events,) = (results / "tensorboard").glob("events.*")
    whole, last = events.read_bytes(), results / "noise/checkpoints/global_step_3"
    os.rename(last, tmp_path / "later")
    events.write_bytes(whole[: len(whole) * 2 // 3])  # cut off in the middle of a record, as by a kill
    invoke("ingest", "--source", results, "--output", tmp_path / "out")
    events.write_bytes(whole)
    os.rename(tmp_path / "later", last)
    invoke("ingest", "--source", results, "--output", tmp_path / "out")

    client = MlflowClient(store)
    (experiment,) = (each.experiment_id for each in client.search_experiments() if each.name == "rlinf-isaac")
    parents = [run for run in client.search_runs([experiment]) if "mlflow.parentRunId" not in run.data.tags]
    steps = [max(p.step for p in client.get_metric_history(run.info.run_id, "time/step")) for run in parents]
    nested = [
        len(client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")) for run in parents
    ]
    assert sorted(zip(steps, nested, strict=True)) == [(2, 1), (3, 2)]
