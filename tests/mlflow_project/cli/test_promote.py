"""Promotion: the champion changes when it should, and only then."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import mlflow
import numpy as np
import pytest
from promotion_support import LENGTH, World, digest
from support import SHORT_EVALUATION, only_error, small_config

GOOD, FAIR, BAD = "s" * 20, "s" * 12 + "t" * 8, "t" * 20
LENIENT = ("--min-success", "0.3")


@pytest.fixture(scope="session")
def real_settings(small_checkpoints) -> dict:
    """What an evaluation of these checkpoints announces as its settings."""
    from rlinf_isaac.checkpoint.bundle import read_bundle
    from rlinf_isaac.engines.base import EvaluationJob
    from rlinf_isaac.engines.local.evaluate import evaluation_settings
    from rlinf_isaac.envs import make_env

    config = small_config([SHORT_EVALUATION])
    env = make_env(config.env, num_envs=1)
    try:
        identity = env.identity.as_dict()
    finally:
        env.close()
    job = EvaluationJob(config, (read_bundle(small_checkpoints / "6"),), Path("out"))
    return json.loads(json.dumps(evaluation_settings(job, identity, config.eval.num_envs)))


@pytest.fixture(scope="session")
def episode_video(tmp_path_factory) -> Path:
    from rlinf_isaac.video import VideoWriter

    path = tmp_path_factory.mktemp("video") / "episode.mp4"
    with VideoWriter(path) as video:
        for brightness in range(LENGTH + 1):
            video.append(np.full((32, 32, 3), 10 * brightness, np.uint8))
    return path


@pytest.fixture(params=["sqlite", "server"])
def world(request, monkeypatch, tmp_path, small_checkpoints, real_settings, episode_video) -> World:
    """The same scenario on a database, and through a real `mlflow server`."""
    if request.param == "sqlite":
        uri = request.getfixturevalue("store")
    else:
        uri = request.getfixturevalue("server").uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    name = f"stack-cube-{tmp_path.parent.name}-{tmp_path.name}"
    return World(uri, name, small_checkpoints / "6", tmp_path, real_settings, episode_video)


def first_champion(world: World, outcomes: str = FAIR) -> Path:
    run, (path,) = world.evaluated(outcomes)
    result = world.promote(run, *LENIENT)
    assert result.exit_code == 0, result.output
    return path


def first_ever(world: World) -> None:
    path = first_champion(world)
    assert world.aliases() == {"champion": digest(path), "candidate": digest(path)}


def better(world: World) -> None:
    old = first_champion(world)
    run, (new,) = world.evaluated(GOOD)
    result = world.promote(run, *LENIENT)
    assert result.exit_code == 0, result.output
    assert world.aliases() == {"champion": digest(new), "previous": digest(old), "candidate": digest(new)}


SCENARIOS = [first_ever, better]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_the_champion_changes_only_when_it_should(world, scenario):
    scenario(world)
