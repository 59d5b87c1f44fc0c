from __future__ import annotations

import json

import pytest
from support import SHORT_EVALUATION, small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.events import (
    EpisodeDone,
    EvaluationFilmed,
    EvaluationFinished,
    EvaluationStarted,
    Progress,
    VideoSaved,
)


def job(checkpoints, output, *overrides, steps=(2,), **options):
    config = small_config([SHORT_EVALUATION, "eval.episodes=3", *overrides])
    return EvaluationJob(config, tuple(read_bundle(checkpoints / str(step)) for step in steps), output, **options)


def events_of(job):
    return [event for event in LocalEngine().evaluate(job) if not isinstance(event, Progress)]


def test_events_come_in_order_per_checkpoint_and_again(small_checkpoints, tmp_path):
    plan = job(small_checkpoints, tmp_path, steps=(2, 6))
    events = events_of(plan)
    for step in (2, 6):
        mine = [e for e in events if getattr(e, "step", None) == step or getattr(e, "checkpoint_step", None) == step]
        assert isinstance(mine[0], EvaluationStarted)
        kinds = [type(event) for event in mine]
        assert kinds[1:] == [EvaluationFinished, VideoSaved, VideoSaved, EvaluationFilmed]
    rows = [event.row for event in events if isinstance(event, EpisodeDone)]
    assert len(rows) == 6 + 4
    assert {row.outcome for row in rows} == {"timeout"}
    assert sorted(map(repr, events_of(plan))) == sorted(map(repr, events))


def test_a_torn_row_is_repeated(small_checkpoints, tmp_path):
    plan = job(small_checkpoints, tmp_path)
    before = [event.row for event in events_of(plan) if isinstance(event, EpisodeDone)]
    (rows,) = tmp_path.rglob("episodes.jsonl")
    text = rows.read_text()
    rows.write_text(text[: len(text) - 20])
    after = [event.row for event in events_of(plan) if isinstance(event, EpisodeDone)]
    assert sorted(map(repr, after)) == sorted(map(repr, before))
    assert len(rows.read_text().splitlines()) == 3


def test_settings_that_change_rows_do_not_share_them(small_checkpoints, tmp_path):
    for overrides in ([], ["eval.policy_seed=1"], ["policy.denoise_steps=1"], ["eval.num_envs=1"]):
        events_of(job(small_checkpoints, tmp_path, *overrides))
    settings = [json.loads(path.read_text()) for path in tmp_path.glob("*/settings.json")]
    assert len(settings) == 4


def test_another_image_size_than_the_training_data_is_refused(small_checkpoints, tmp_path):
    with pytest.raises(InvalidJob, match="image_size=64"):
        events_of(job(small_checkpoints, tmp_path, "env.image_size=32"))
    assert list(tmp_path.iterdir()) == []
    assert events_of(job(small_checkpoints, tmp_path, "env.image_size=32", allow_mismatch=True))


def test_processes_change_no_row_and_lanes_have_rows_of_their_own(small_checkpoints, tmp_path):
    """Lanes halve the batches, and with that the rounding: their rows are not those of one lane."""
    spread = (["eval.num_envs=2"], ["compute.env_processes=2"], ["compute.lanes=2"])
    rows = []
    for overrides in spread:
        events = events_of(job(small_checkpoints, tmp_path / "out", "eval.num_envs=2", "eval.episodes=4", *overrides))
        rows.append({event.row.seed: event.row for event in events if isinstance(event, EpisodeDone)})
    assert rows[1] == rows[0]
    settings = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/settings.json")]
    assert sorted(each.get("lanes", 1) for each in settings) == [1, 2]
    assert rows[2].keys() == rows[0].keys()
    assert [row.env_index for row in rows[2].values()] == [row.env_index for row in rows[0].values()]
    for seed, row in rows[2].items():
        assert row.episode_return == rows[0][seed].episode_return
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 4


def test_lanes_give_the_same_rows_again_and_after_a_kill(small_checkpoints, tmp_path):
    overrides = ("compute.lanes=2", "eval.num_envs=4", "eval.episodes=7")
    before = events_of(job(small_checkpoints, tmp_path / "a", *overrides))
    other = job(small_checkpoints, tmp_path / "b", *overrides)
    for event in LocalEngine().evaluate(other):
        if isinstance(event, EpisodeDone):
            break
    after = [event.row for event in events_of(other) if isinstance(event, EpisodeDone)]
    assert sorted(map(repr, after)) == sorted(repr(event.row) for event in before if isinstance(event, EpisodeDone))
