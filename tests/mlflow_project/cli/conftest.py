from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from forked_verbs import Verb, Verbs

from mlflow_project.cli import cli

if TYPE_CHECKING:
    from promotion_support import World


@pytest.fixture
def invoke(store) -> Callable[..., Result]:
    """Run a verb in this process, in the test's empty directory with its own store."""

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def forked_verbs() -> Iterator[Verbs]:
    verbs = Verbs()
    yield verbs
    verbs.close()


@pytest.fixture
def start(store, forked_verbs) -> Iterator[Callable[..., Verb]]:
    """Start a verb as a process of its own."""
    processes = []

    def run(*arguments: str | Path) -> Verb:
        processes.append(forked_verbs.start([str(argument) for argument in arguments]))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def real_settings(small_checkpoints) -> dict:
    """What an evaluation of these checkpoints announces as its settings."""
    from support import SHORT_EVALUATION, small_config

    from rlinf_isaac.checkpoint.bundle import read_bundle
    from rlinf_isaac.engines.base import EvaluationJob
    from rlinf_isaac.engines.evaluation import evaluation_settings
    from rlinf_isaac.envs import make_env

    config = small_config([SHORT_EVALUATION])
    env = make_env(config, num_envs=1)
    try:
        identity = env.identity.as_dict()
    finally:
        env.close()
    job = EvaluationJob(config, (read_bundle(small_checkpoints / "6"),), Path("out"))
    return json.loads(json.dumps(evaluation_settings(job, identity, config.eval.num_envs)))


@pytest.fixture(scope="session")
def episode_video(tmp_path_factory) -> Path:
    import numpy as np
    from promotion_support import LENGTH

    from rlinf_isaac.media.video import VideoWriter

    path = tmp_path_factory.mktemp("video") / "episode.mp4"
    with VideoWriter(path) as video:
        for brightness in range(LENGTH + 1):
            video.append(np.full((32, 32, 3), 10 * brightness, np.uint8))
    return path


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def world(request, monkeypatch, tmp_path, small_dataset, small_checkpoints, real_settings, episode_video) -> World:
    """The same scenario on a database, and through a real `mlflow server` of its own: what others evaluate counts."""
    from promotion_support import World

    on_server = request.param == "server"
    uri = request.getfixturevalue("own_server").uri if on_server else request.getfixturevalue("store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    name = f"stack-cube-{tmp_path.parent.name}-{tmp_path.name}"
    return World(uri, name, small_dataset, small_checkpoints / "6", tmp_path, real_settings, episode_video)
