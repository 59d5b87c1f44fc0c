"""A reinforcement learning job that takes seconds: the small checkpoint, episodes of two chunks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

import pytest
from support import SMALL_RL

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config import build_config
from rlinf_isaac.engines.base import RlJob

T = TypeVar("T")


@pytest.fixture
def make_job(small_checkpoints, tmp_path) -> Callable[..., RlJob]:
    def make(*overrides: str, output: str = "rl", step: int = 6) -> RlJob:
        start = read_bundle(small_checkpoints / str(step))
        config = build_config(start.config["job"], "test", [*SMALL_RL, "rl.iterations=3", *overrides])
        return RlJob(config, start, tmp_path / output)

    return make


@pytest.fixture
def result_of() -> Callable[[Generator[object, None, T]], T]:
    """What a generator returns, whatever it yields on the way."""

    def run(generator: Generator[object, None, T]) -> T:
        while True:
            try:
                next(generator)
            except StopIteration as end:
                return end.value

    return run
