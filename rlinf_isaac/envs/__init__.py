"""Environments: `vector` is what every task's environment is like, `stack_cube` this project's own task with its
backends `mujoco` (embedded) and `isaaclab` (IsaacLab's own task), and `host` runs anybody's environment in an
interpreter of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlinf_isaac.config.schema import JobConfig
    from rlinf_isaac.envs.vector import TaskEnv
    from rlinf_isaac.ground.errors import Problem
    from rlinf_isaac.tasks.task import Task
    from rlinf_isaac.tasks.variation import Variation


def no_environment(task: Task) -> Problem:
    """The problem of a job that plays in a task without an environment."""
    from rlinf_isaac.ground.errors import Problem

    cause = f"the task {task.name} has no environment to play in"
    return Problem("no-env", cause, "add a section env to its description; docs/tasks.md says how")


def no_variation(task: Task) -> Problem:
    """The problem of an evaluation that varies what another task's environment does."""
    from rlinf_isaac.ground.errors import Problem

    cause = f"--vary knows the scene of stack-cube alone, the task is {task.name}"
    return Problem("vary-task", cause, "leave --vary out, or evaluate a checkpoint of stack-cube")


def make_env(
    config: JobConfig,
    num_envs: int,
    env_python: str | None = None,
    workers: int | None = None,
    *,
    apart: bool = False,
    varied: Variation | None = None,
) -> TaskEnv:
    """Builds the vector environment of a job.

    Args:
        config: the job; its task, its section `env`, and ``compute.device``, on which simulators run that support it.
        num_envs: number of environments.
        env_python: interpreter that has the simulator; None: the one that the task, or ISAACLAB_PYTHON, names.
        workers: how many processes simulate, at most one for each environment; None: as many as there are CPUs for a
            hosted environment, and one for MuJoCo. IsaacLab takes no notice of it: it has one.
        apart: whether that one of MuJoCo is not this process itself, so that any thread may use the environment.
        varied: what differs from the usual environment in every episode; None: nothing.

    Raises:
        InvalidJob: the backend is unknown.
        SimulatorError: the task has no environment, or the backend does not support the config or the variation.
        SimulatorDied: a simulator in a separate process did not start.
    """
    # Interpreters of simulators import this package, too, and have no package that reads configs.
    from rlinf_isaac.config.task import task_of
    from rlinf_isaac.envs.stack_cube.backends import BACKENDS, check_axis
    from rlinf_isaac.ground.errors import InvalidJob, SimulatorError
    from rlinf_isaac.tasks.task import BUILTIN, ISAACLAB

    task, env = task_of(config), config.env
    if task.env is None:
        raise SimulatorError([no_environment(task)])
    if varied is not None and task.env.kind != BUILTIN:
        raise SimulatorError([no_variation(task)])
    if task.env.kind == ISAACLAB:
        from rlinf_isaac.envs.isaaclab.task_env import LabEnv

        return LabEnv(num_envs, task, env.max_episode_steps, env_python, _device_of(config))
    if task.env.kind != BUILTIN:
        from rlinf_isaac.envs.host.env import HostEnv

        return HostEnv(num_envs, task, env.max_episode_steps, env_python, workers)
    if env.backend not in BACKENDS:
        cure = f"use one of {', '.join(BACKENDS)}"
        raise InvalidJob.of("unknown-backend", f"env.backend is {env.backend!r}", cure)
    if varied is not None:
        if problems := check_axis(env.backend, varied.axis):
            raise SimulatorError(problems)
        if varied.axis == "delay":
            from rlinf_isaac.envs.delay import DelayedEnv
            from rlinf_isaac.envs.stack_cube.contract import HOLD

            plain = make_env(config, num_envs, env_python, workers, apart=apart)
            return DelayedEnv(plain, int(varied.strength), HOLD)
    settings: dict[str, Any] = {
        "task": task,
        "image_size": env.image_size,
        "renderer": env.renderer,
        "max_episode_steps": env.max_episode_steps,
    }
    if env.backend == "isaaclab":
        from rlinf_isaac.envs.isaaclab.env import IsaacLabVectorEnv

        return IsaacLabVectorEnv(num_envs, **settings, python=env_python, device=_device_of(config))
    if apart or min(workers or 1, num_envs) > 1:
        from rlinf_isaac.envs.mujoco.processes import StackCubeProcesses

        return StackCubeProcesses(num_envs, **settings, workers=workers or 1, varied=varied)
    from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv

    return StackCubeVectorEnv(num_envs, **settings, varied=varied)


def _device_of(config: JobConfig) -> str:
    """On which device a simulator that can use a GPU simulates."""
    return config.compute.device if config.compute.device.startswith("cuda") else "cpu"
