"""Jobs on the real RLinf and Ray: the results are those of the local engine, and nothing is left running."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rlinf_support import owned_by
from support import SHORT_EVALUATION, rows_of, small_config

from rlinf_isaac.checkpoint.bundle import read_bundle, select_bundles
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.rlinf import RlinfEngine, Runtime
from rlinf_isaac.ground.errors import EngineFailed
from rlinf_isaac.ground.events import (
    EpisodeDone,
    EvaluationFinished,
    FileSaved,
    Metrics,
    VideoSaved,
)
from rlinf_isaac.media.video import verify_video

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
    # An episode is told when it ends and, where it is filmed, again with its film.
    told, films = only(events, EpisodeDone), only(events, VideoSaved)
    assert len(told) == 2 * job.config.eval.episodes + len(films)
    assert len({(event.row.checkpoint_step, event.row.seed) for event in told}) == 2 * job.config.eval.episodes
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
    with pytest.raises(EngineFailed, match="RLinf has reported nothing for"):
        list(engine.evaluate(job))
