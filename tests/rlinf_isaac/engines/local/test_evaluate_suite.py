from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support import rows_of

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.of_task import of_task
from rlinf_isaac.config import build_config
from rlinf_isaac.config.suite import for_task
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.ground.errors import BundleError, InvalidJob
from rlinf_isaac.ground.events import (
    EpisodeDone,
    EvaluationFilmed,
    EvaluationFinished,
    EvaluationStarted,
    Metrics,
    Progress,
    VideoSaved,
)
from rlinf_isaac.stats.sequential import StopRule

TASKS = ("walk/flat", "walk/deep")


def job(checkpoints, output, *overrides, steps=(2,), **options):
    bundles = tuple(read_bundle(checkpoints / str(step)) for step in steps)
    config = build_config(bundles[0].job, "here", ["eval.episodes=4", "eval.num_envs=2", "eval.videos=1", *overrides])
    return EvaluationJob(config, bundles, output, **options)


def events_of(job):
    return [event for event in LocalEngine().evaluate(job) if not isinstance(event, Progress)]


def rows(events):
    """One row per episode; that of a filmed one was announced twice, and names the film in the end."""
    return list({(e.row.checkpoint, e.row.key): e.row for e in events if isinstance(e, EpisodeDone)}.values())


def test_a_checkpoint_has_the_norm_stats_of_each_task(walk_checkpoints):
    bundle = read_bundle(walk_checkpoints / "2")
    assert bundle.asset_id == "walker"
    assert set(bundle.further_norm_stats) == {"diver"}
    for asset_id in ("walker", "diver"):
        both = [bundle.path / place / asset_id / "norm_stats.json" for place in ("assets", "")]
        assert both[0].read_bytes() == both[1].read_bytes() == of_task(bundle, _task_of(asset_id)).norm_stats_bytes
    (bundle.path / "diver" / "norm_stats.json").read_bytes()
    with pytest.raises(InvalidJob, match="walk/flat, walk/deep"):
        of_task(bundle, "walk/other")


def _task_of(asset_id):
    return {"walker": "walk/flat", "diver": "walk/deep"}[asset_id]


def test_changed_norm_stats_of_any_task_are_noticed(walk_checkpoints, tmp_path):
    import shutil

    copy = shutil.copytree(walk_checkpoints / "2", tmp_path / "2")
    file = copy / "assets" / "diver" / "norm_stats.json"
    file.write_text(file.read_text().replace("0", "1", 1))
    with pytest.raises(BundleError):
        read_bundle(copy)


def test_every_task_is_played_and_the_rows_say_which(walk_checkpoints, tmp_path):
    plan = job(walk_checkpoints, tmp_path, steps=(2, 6))
    events = events_of(plan)
    for step in (2, 6):
        mine = [e for e in events if getattr(e, "step", None) == step or getattr(e, "checkpoint_step", None) == step]
        assert isinstance(mine[0], EvaluationStarted)
        assert isinstance(mine[-1], EvaluationFilmed)
        assert len([each for each in mine if isinstance(each, EvaluationStarted | EvaluationFinished)]) == 2
        assert [each.task for each in mine if isinstance(each, VideoSaved)] == list(TASKS)
        settings = mine[0].settings
        assert list(settings["tasks"]) == list(TASKS)
        assert [settings["tasks"][task]["environment"]["task"] for task in TASKS] == list(TASKS)
        assert settings["action_chunk"] == 8
    keys = [(row.checkpoint_step, row.key) for row in rows(events)]
    assert sorted(keys) == sorted((step, (5000 + n, task)) for step in (2, 6) for n in range(4) for task in TASKS)
    assert sorted(map(repr, events_of(plan))) == sorted(map(repr, events))


def test_the_rows_of_a_task_are_those_of_an_evaluation_of_it_alone(walk_checkpoints, tmp_path):
    plan = job(walk_checkpoints, tmp_path / "suite")
    together = rows(events_of(plan))
    for name in TASKS:
        config = replace(for_task(plan.config, name), suite={})
        views = tuple(of_task(bundle, name) for bundle in plan.bundles)
        alone = rows(events_of(EvaluationJob(config, views, tmp_path / "alone")))
        assert alone == [replace(row, task="") for row in together if row.task == name]
        assert "task" not in alone[0].as_dict()


def test_some_tasks_can_be_chosen_and_their_rows_are_used_again(walk_checkpoints, tmp_path):
    one = rows(events_of(job(walk_checkpoints, tmp_path, "env.task=walk/deep")))
    assert [row.key for row in one] == [(5000 + n, "walk/deep") for n in range(4)]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("episodes.jsonl")}
    both = rows(events_of(job(walk_checkpoints, tmp_path)))
    assert [row for row in both if row.task == "walk/deep"] == one
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(rows_of(tmp_path)) == 8


def test_a_torn_row_of_one_task_is_repeated(walk_checkpoints, tmp_path):
    plan = job(walk_checkpoints, tmp_path)
    before = rows(events_of(plan))
    files = {json.loads(path.read_text().splitlines()[0])["task"]: path for path in tmp_path.rglob("episodes.jsonl")}
    assert set(files) == set(TASKS)
    whole = files["walk/deep"].read_text()
    files["walk/deep"].write_text(whole[: whole.rindex("{") + 20])
    assert sorted(map(repr, rows(events_of(plan)))) == sorted(map(repr, before))
    assert files["walk/deep"].read_text().count("\n") >= 4


def test_until_decided_every_batch_is_played_in_all_tasks_by_all(walk_checkpoints, tmp_path):
    plan = job(walk_checkpoints, tmp_path, steps=(2, 6), stop_rule=StopRule(2))
    events = events_of(plan)
    seen = [(row.checkpoint_step, row.task, row.seed) for row in rows(events)]
    first = [each for each in seen if each[2] < 5002]
    assert seen[: len(first)] == first
    assert {each[:2] for each in first} == {(step, task) for step in (2, 6) for task in TASKS}
    looks = [event.step for event in events if isinstance(event, Metrics) and "until_decided/e_value" in event.values]
    assert looks in ([4], [4, 8])
    assert [event.step for event in events if isinstance(event, EvaluationFinished)] == [2, 6]


def test_a_mismatch_of_one_task_is_refused(walk_checkpoints, tmp_path):
    plan = job(walk_checkpoints, tmp_path)
    suite = json.loads(json.dumps(plan.config.suite))
    suite["tasks"]["walk/deep"]["prompts"] = ["walk to the middle"]
    with pytest.raises(InvalidJob, match="walk/deep"):
        events_of(replace(plan, config=replace(plan.config, suite=suite)))
