"""A reinforcement learning job that takes seconds: the small checkpoint, episodes of two chunks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import SHORT_EVALUATION

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config import build_config
from rlinf_isaac.engines.base import RlJob

SMALL_RL = [
    SHORT_EVALUATION,
    "rl.iterations=3",
    "rl.episodes=4",
    "rl.num_envs=2",
    "rl.workers=1",
    "rl.minibatch=4",
    "rl.epochs=2",
    "rl.value_widths=[8]",
    "rl.save_interval=1",
    "rl.eval_interval=2",
    "rl.eval_episodes=2",
    "rl.lr=1e-4",
    # Not those of the preset, but those that do most.
    "rl.trainable=expert",
    "rl.noise_steps=0",
    "rl.accumulate=1",
    "rl.warmup_iterations=0",
]


@pytest.fixture
def make_job(small_checkpoints, tmp_path) -> Callable[..., RlJob]:
    def make(*overrides: str, output: str = "rl", step: int = 6) -> RlJob:
        start = read_bundle(small_checkpoints / str(step))
        config = build_config(start.config["job"], "test", [*SMALL_RL, *overrides])
        return RlJob(config, start, tmp_path / output)

    return make
