"""The stack-cube contract and its backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlinf_isaac.errors import InvalidJob

if TYPE_CHECKING:
    from rlinf_isaac.config.schema import EnvConfig
    from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv


def make_env(config: EnvConfig, num_envs: int) -> StackCubeVectorEnv:
    """The vector environment a job asks for.

    Raises:
        InvalidJob: the backend is unknown.
        SimulatorError: the backend cannot be built the way the config asks for.
    """
    if config.backend != "mujoco":
        raise InvalidJob.of("unknown-backend", f"env.backend is {config.backend!r}", "use env.backend=mujoco")
    from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv

    return StackCubeVectorEnv(
        num_envs,
        task=config.task,
        image_size=config.image_size,
        renderer=config.renderer,
        max_episode_steps=config.max_episode_steps,
    )
