"""Environments of lerobot, where it is installed beside a plugin, as examples/tasks/so101_pick_cube.yaml needs them:

SO101_PYTHON=so101-venv/bin/python python -m pytest -m guests
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlinf_isaac.envs.host.env import HostEnv
from rlinf_isaac.envs.host.interpreter import check_host
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.task import Task

OWN_CONFIG = """
from dataclasses import dataclass

import gymnasium
from lerobot.envs.configs import EnvConfig

gymnasium.register("mine/Pole-v0", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=5)


@EnvConfig.register_subclass("mine")
@dataclass
class Mine(EnvConfig):
    task: str = "Pole-v0"
    gravity: float = 9.8
    hub_path: str | None = None
    parts: int = 1
    package_name = "mine"

    @property
    def gym_kwargs(self):
        return {"g": self.gravity}

    def create_envs(self, n_envs, use_async_envs=False):
        made = super().create_envs(n_envs, use_async_envs)
        return {"mine": {part: made["mine"][0] for part in range(self.parts)}}
"""
ONE = np.ones(1, bool)


def described(directory: Path, make: str = "mine.py:Mine", **options: Any) -> Task:
    (directory / "mine.py").write_text(OWN_CONFIG)
    values = {
        "name": "pole",
        "prompt": "hold it up",
        "control_hz": 20,
        "state": {"dims": 3, "env": "observation"},
        "action": {"dims": 1},
        "env": {"kind": "lerobot", "make": make, "options": options, "success": "reward>=0"},
    }
    return from_dict(values, "a test", directory)


@pytest.fixture(scope="session")
def python() -> str:
    if "SO101_PYTHON" not in os.environ:
        pytest.skip("SO101_PYTHON names no interpreter")
    return os.environ["SO101_PYTHON"]


def test_without_lerobot_the_preflight_says_so(tmp_path) -> None:
    problems = check_host(described(tmp_path), sys.executable)
    try:
        import lerobot  # noqa: F401
    except ImportError:
        assert [problem.code for problem in problems] == ["no-env-package"]
        assert "lerobot" in problems[0].cause
    else:
        assert problems == []


@pytest.mark.guests
def test_a_config_of_ones_own(python, tmp_path) -> None:
    def moved(**options: Any) -> tuple[float, HostEnv]:
        env = HostEnv(1, described(tmp_path, **options), env_python=python)
        try:
            env.reset(seed=[0])
            step = env.chunk_step(np.zeros((1, 9, 1)), ONE)
            assert (step.steps.tolist(), step.outcome(0)) == ([5], "timeout"), "the limit of its registration"
            return float(step.observation["observation"][0, 2]), env
        finally:
            env.close()

    earth, env = moved()
    moon, _ = moved(gravity=1.6)
    assert abs(earth) > abs(moon)
    assert env.identity.backend.startswith("lerobot-gymnasium-")
    assert env.report["versions"]["lerobot"]


@pytest.mark.guests
@pytest.mark.parametrize(
    ("make", "options", "why"),
    [
        ("so102", {}, r"no environment of the type 'so102', only .*so101"),
        ("mine.py:Mine", {"hub_path": "somebody/env"}, "would execute code of somebody/env"),
        ("mine.py:Mine", {"parts": 2}, "is 2 tasks; choose one"),
        ("mine.py:Mine", {"gravitty": 2}, "gravitty"),
    ],
)
def test_what_cannot_be_one_environment_is_refused(python, tmp_path, make, options, why) -> None:
    with pytest.raises(SimulatorError, match=rf"\[env-not-made\](.|\n)*{why}"):
        HostEnv(1, described(tmp_path, make, **options), env_python=python)
