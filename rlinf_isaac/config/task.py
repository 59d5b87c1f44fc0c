"""The task of a job, and what it decides of the job's other values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from typing import Any

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.registry import SHIPPED, find_task, task_names
from rlinf_isaac.tasks.task import BUILTIN, Task

STACK_CUBES = ("stack2", "stack3")


def task_of(config: JobConfig) -> Task:
    """The task of a job; of several, the first (`suite.tasks_of` has all). A stack-cube task has the state that
    ``policy.state_layout`` names."""
    if config.suite:
        members, meant = config.suite["tasks"], config.env.task.split(",")
        described = members[next((name for name in config.suite["order"] if name in meant), config.suite["order"][0])]
        return _from_text(json.dumps(described, sort_keys=True))
    if config.task:
        return _from_text(json.dumps(config.task, sort_keys=True))
    return stack_cube(config.env.task, config.policy.state_layout)


@lru_cache(maxsize=64)
def _from_text(text: str) -> Task:
    return from_dict(json.loads(text), "the job's task")


@lru_cache(maxsize=64)
def stack_cube(name: str, layout: str = "proprio") -> Task:
    """One of this project's own tasks, with the state that a layout names."""
    return import_module(f"{SHIPPED}.stack_cube").stack_cube(name, layout)


def with_task(config: JobConfig, chosen: frozenset[str]) -> JobConfig:
    """The config with the task that ``env.task`` names described in it, and with the values that the task decides.

    The description of a task that is not stack-cube travels with the config, into checkpoints and to other machines.

    Args:
        config: of a preset, or recorded, with overrides.
        chosen: the keys that a person has set; what the task says does not replace them.

    Raises:
        InvalidJob: there is no such task, or its description is wrong.
    """
    name = config.env.task
    if config.task and config.task["name"] == name and ("env.task" not in chosen or name not in task_names()):
        return config
    task = find_task(name)
    if task.env is not None and task.env.kind == BUILTIN:
        if not config.task:
            return config
        own: dict[str, Any] = {"env_action_dim": task.action.dims, "delta_actions": "none"}
        return _filled(config, {}, own, {"backend": "mujoco"}, chosen)
    return filled_with(config, task, chosen)


def filled_with(config: JobConfig, task: Task, chosen: frozenset[str] = frozenset()) -> JobConfig:
    """The config with the description of a task that is not stack-cube, and with what it decides unless it is
    `chosen`."""
    policy: dict[str, Any] = {
        "env_action_dim": task.action.dims,
        "delta_actions": task.action.delta,
        "asset_id": task.asset_id,
    }
    env: dict[str, Any] = {"backend": "none", "task": task.name}
    if task.env is not None:
        env |= {"backend": task.env.kind, "max_episode_steps": task.env.max_steps}
    return _filled(config, task.as_dict(), policy, env, chosen - {"env.task"})


def with_prompts(config: JobConfig, prompts: Iterable[str]) -> JobConfig:
    """The config with these instructions in its task, if that leaves them to the dataset and its environment, too."""
    if not config.task or task_of(config).prompts or task_of(config).instructed_by_env:
        return config
    return replace(config, task=config.task | {"prompts": sorted(set(prompts)) or None})


def _filled(
    config: JobConfig,
    described: dict[str, Any],
    policy: dict[str, Any],
    env: dict[str, Any],
    chosen: frozenset[str],
) -> JobConfig:
    """The config with what a task says, where nobody chose otherwise."""
    return replace(
        config,
        task=described,
        policy=replace(config.policy, **{key: value for key, value in policy.items() if f"policy.{key}" not in chosen}),
        env=replace(config.env, **{key: value for key, value in env.items() if f"env.{key}" not in chosen}),
    )
