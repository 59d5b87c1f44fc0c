"""Jobs on the real RLinf and Ray: the results are those of the local engine, and nothing is left running."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support import SHORT_EVALUATION, SMALL_RL, rows_of, small_config

from rlinf_isaac.checkpoint.bundle import read_bundle, select_bundles
from rlinf_isaac.checkpoint.header import read_keys
from rlinf_isaac.engines.base import EvaluationJob, RlJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.rlinf import RlinfEngine, Runtime
from rlinf_isaac.engines.rlinf.processes import owned_by
from rlinf_isaac.errors import EngineFailed
from rlinf_isaac.events import (
    CheckpointSaved,
    EpisodeDone,
    EvaluationFinished,
    FileSaved,
    Metrics,
    VideoSaved,
)
from rlinf_isaac.video import verify_video

pytestmark = pytest.mark.rlinf


@pytest.fixture(autouse=True)
def _nothing_is_left_running():
    yield
    assert owned_by(os.getpid()) == []
    assert list(Path("/tmp").glob(f"rlinf-{os.getpid()}-*")) == []


@pytest.fixture
def job(small_checkpoints, tmp_path):
    bundles = tuple(read_bundle(path) for path in select_bundles(small_checkpoints, [2, 6]))
    return EvaluationJob(small_config([SHORT_EVALUATION]), bundles, tmp_path / "rlinf")


def only(events, kind):
    return [event for event in events if isinstance(event, kind)]


def test_rows_videos_and_checkpoints_of_a_sweep_are_those_of_the_local_engine(engine, job, tmp_path):
    local = replace(job, output=tmp_path / "local")
    expected = list(LocalEngine().evaluate(local))
    events = list(engine.evaluate(job))

    assert rows_of(job.output) == rows_of(local.output)
    assert len(only(events, EpisodeDone)) == 2 * job.config.eval.episodes
    ours, theirs = (
        [(event.checkpoint_step, event.path.name, event.path.read_bytes()) for event in only(each, VideoSaved)]
        for each in (events, expected)
    )
    assert sorted(ours) == sorted(theirs)
    assert [event.digest for event in only(events, EvaluationFinished)] == [bundle.digest for bundle in job.bundles]

    # What RLinf itself says of these episodes.
    said = {event.step: event.values for event in only(events, Metrics) if event.step}
    assert [values["eval/num_trajectories"] for values in said.values()] == [job.config.eval.episodes] * 2
    assert {values["eval/episode_len"] for values in said.values()} == {16.0}
    (config, *recorded) = only(events, FileSaved)
    assert config.name == "rlinf/config.yaml"
    assert config.path.is_file()
    assert {event.name.rpartition("/")[0] for event in recorded} == {"rlinf/video/2", "rlinf/video/6"}
    journal = recorded[0].path.parents[3] / "journal/EnvGroup-0.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    frames = [line["frames"] for line in lines if line["kind"] == "recorded"]
    assert [verify_video(event.path, count).frames for event, count in zip(recorded, frames, strict=True)] == frames

    # The same again is announced, not played.
    again = list(engine.evaluate(job))
    assert [event.row for event in only(again, EpisodeDone)] == [event.row for event in only(events, EpisodeDone)]
    assert [event for event in only(again, Metrics) if event.step] == []


def test_fine_tuning_makes_bundles_and_a_resumed_one_ends_the_same(engine, small_dataset, tmp_path):
    from mlflow_project.cli.sft import plan

    job = plan(small_config(), small_dataset, None, tmp_path, "-rlinf")
    disturbed = replace(job, output=tmp_path / "disturbed")
    for event in engine.sft(disturbed):
        if isinstance(event, CheckpointSaved):
            break  # the generator is closed: everything is killed
    resumed = only(engine.sft(disturbed), CheckpointSaved)
    events = list(engine.sft(job))

    assert [event.step for event in resumed] == [event.step for event in only(events, CheckpointSaved)] == [2, 4, 6]
    for event, other in zip(only(events, CheckpointSaved), resumed, strict=True):
        bundle = read_bundle(event.path)
        assert bundle.norm_stats_bytes == job.norm_stats
        assert bundle.lineage == job.lineage
        assert bundle.config["engine"]["rlinf"].startswith("0.3.")
        assert read_keys(event.path).keys() == read_keys(other.path).keys()
        assert (event.path / "model.safetensors").read_bytes() == (other.path / "model.safetensors").read_bytes()

    # The same weights, batches, noise and flow times as the local engine, so the first loss is the same.
    first = min(only(events, Metrics), key=lambda event: event.step)
    local = next(
        event for event in LocalEngine().sft(replace(job, output=tmp_path / "local")) if only([event], Metrics)
    )
    assert first.step == local.step == 2
    assert first.values["train/loss"] == pytest.approx(local.values["train/loss"], rel=1e-2)


def test_reinforcement_learning_makes_bundles_that_evaluation_takes(engine, small_checkpoints, tmp_path):
    start = read_bundle(small_checkpoints / "6")
    config = small_config([*SMALL_RL, "rl.iterations=2", "rl.eval_interval=1"])
    events = list(engine.rl(RlJob(config, start, tmp_path / "rl")))

    saved = only(events, CheckpointSaved)
    assert [event.step for event in saved] == [1, 2]
    metrics = {event.step: event.values for event in only(events, Metrics)}
    assert list(metrics) == [0, 1, 2]
    assert all("heldout/success_once" in values for values in metrics.values())
    assert {"rollout/success_once", "train/approx_kl", "train/critic_loss"} <= metrics[1].keys()
    # Before the first step of the optimiser the policy is the one that played.
    assert metrics[1]["train/actor/ratio"] == pytest.approx(1, abs=0.05)

    result = read_bundle(saved[-1].path)
    assert result.norm_stats_bytes == start.norm_stats_bytes
    assert result.lineage["parent"] == start.digest
    keys = read_keys(saved[-1].path)
    assert any(name.startswith("value_head.") for name in keys)
    assert read_keys(start.path).keys() < keys.keys()
    evaluation = EvaluationJob(small_config([SHORT_EVALUATION]), (result,), tmp_path / "eval")
    assert len(only(LocalEngine().evaluate(evaluation), EpisodeDone)) == evaluation.config.eval.episodes


def test_an_extension_that_raises_fails_the_run_with_its_cause(engine, job, tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("def register():\n    import os\n    if 'WORKER_NAME' in os.environ: 1 / 0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("RLINF_EXT_MODULE", "theirs")
    with pytest.raises(EngineFailed, match=r"an extension failed in worker .*ZeroDivisionError"):
        list(engine.evaluate(job))


def test_weights_that_changed_since_they_were_checked(engine, job):
    """RLinf would load what fits and leave the rest as it is."""
    path = job.bundles[1].path / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        with pytest.raises(EngineFailed, match="bundle"):
            list(engine.evaluate(job))
    finally:
        path.write_bytes(data)
    assert {row["checkpoint_step"] for row in rows_of(job.output)} == {2}


def test_nothing_heard_for_too_long_fails_the_run(rlinf_python, job):
    engine = RlinfEngine(Runtime(python=rlinf_python, patience_s=0.5))
    with pytest.raises(EngineFailed, match="nothing was heard of RLinf for"):
        list(engine.evaluate(job))
