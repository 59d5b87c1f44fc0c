"""Environments: the task (`stack_cube`) and its backends `mujoco` (embedded) and `isaaclab` (IsaacLab's own task)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlinf_isaac.envs.stack_cube.backends import BACKENDS
from rlinf_isaac.ground.errors import InvalidJob

if TYPE_CHECKING:
    from rlinf_isaac.config.schema import EnvConfig
    from rlinf_isaac.envs.stack_cube.vector import StackCubeEnv


def make_env(config: EnvConfig, num_envs: int, device: str = "cpu", isaaclab_python: str | None = None) -> StackCubeEnv:
    """Builds the vector environment of a job.

    Args:
        config: the job's section `env`.
        num_envs: number of environments.
        device: torch device of the job. Simulators that support it run on it.
        isaaclab_python: interpreter that has IsaacLab; None: the one that ISAACLAB_PYTHON names.

    Raises:
        InvalidJob: the backend is unknown.
        SimulatorError: the backend does not support the config.
        SimulatorDied: a simulator in a separate process did not start.
    """
    if config.backend not in BACKENDS:
        cure = f"use one of {', '.join(BACKENDS)}"
        raise InvalidJob.of("unknown-backend", f"env.backend is {config.backend!r}", cure)
    settings: dict[str, Any] = {
        "task": config.task,
        "image_size": config.image_size,
        "renderer": config.renderer,
        "max_episode_steps": config.max_episode_steps,
    }
    if config.backend == "isaaclab":
        from rlinf_isaac.envs.isaaclab.env import IsaacLabVectorEnv

        device = device if device.startswith("cuda") else "cpu"
        return IsaacLabVectorEnv(num_envs, **settings, python=isaaclab_python, device=device)
    from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv

    return StackCubeVectorEnv(num_envs, **settings)
