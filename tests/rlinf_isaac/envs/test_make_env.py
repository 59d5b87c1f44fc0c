from __future__ import annotations

import pytest

from rlinf_isaac.config.schema import EnvConfig, JobConfig
from rlinf_isaac.envs import make_env
from rlinf_isaac.ground.errors import InvalidJob, SimulatorError


def test_makes_what_the_config_says() -> None:
    config = JobConfig(env=EnvConfig(task="stack3", image_size=16, renderer="rays", max_episode_steps=7))
    env = make_env(config, 2)
    assert (env.num_envs, env.identity.task, env.identity.image_size) == (2, "stack3", 16)
    assert (env.identity.renderer, env.identity.max_episode_steps) == ("rays", 7)
    env.close()


def test_unknown_backend_is_named() -> None:
    with pytest.raises(InvalidJob, match=r"env\.backend is 'pybullet'"):
        make_env(JobConfig(env=EnvConfig(backend="pybullet")), 1)


@pytest.mark.parametrize(("key", "value"), [("renderer", "vulkan"), ("image_size", 0)])
def test_bad_value_is_named(key: str, value: object) -> None:
    with pytest.raises(SimulatorError, match="image_size" if key == "image_size" else str(value)):
        make_env(JobConfig(env=EnvConfig(**{"image_size": 16, "renderer": "rays", key: value})), 1)


def test_the_named_interpreter_goes_before_the_one_in_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("ISAACLAB_PYTHON", "not/this/one")
    config = JobConfig(env=EnvConfig(backend="isaaclab", task="stack3"))
    with pytest.raises(InvalidJob, match="none/python is not a Python interpreter"):
        make_env(config, 1, env_python="none/python")
    with pytest.raises(InvalidJob, match="not/this/one is not a Python interpreter"):
        make_env(config, 1)
