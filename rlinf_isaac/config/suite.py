"""The tasks of a job: one, or those of a suite. What a job does for each of them, it does with `for_task`.

A job of a suite has all its descriptions in ``config.suite``. Its key ``env.task`` says which of them are meant: the
suite's name stands for all of them, the names of some with commas for these, and a single name for one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import filled_with, stack_cube, task_of, with_task
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.registry import find_task
from rlinf_isaac.tasks.suite import Suite, find_suite
from rlinf_isaac.tasks.task import BUILTIN, Task, differences

OF_EACH_TASK = (
    "policy.env_action_dim",
    "policy.delta_actions",
    "policy.asset_id",
    "env.backend",
    "env.max_episode_steps",
)
"""Keys that each task of a suite decides for itself."""


def names_of(config: JobConfig) -> tuple[str, ...]:
    """The names of the tasks that a job is about, in the order of the suite."""
    if not config.suite:
        return (config.env.task,)
    order = tuple(config.suite["order"])
    if config.env.task == config.suite["name"]:
        return order
    meant = config.env.task.split(",")
    return tuple(name for name in order if name in meant)


def tasks_of(config: JobConfig) -> tuple[Task, ...]:
    """The tasks that a job is about."""
    return tuple(task_of(each) for each in configs_of(config))


def configs_of(config: JobConfig) -> tuple[JobConfig, ...]:
    """The job of each task that a job is about; of a single task, the job itself."""
    return tuple(for_task(config, name) for name in names_of(config)) if config.suite else (config,)


def for_task(config: JobConfig, name: str) -> JobConfig:
    """The job of one task of a suite: with its description and the values that it decides. The suite stays."""
    described = replace(config, env=replace(config.env, task=name))
    task = task_of(described)
    asset_id = config.suite["assets"][name]
    if task.env is not None and task.env.kind == BUILTIN:
        policy = replace(config.policy, env_action_dim=task.action.dims, delta_actions="none", asset_id=asset_id)
        return replace(described, task={}, policy=policy, env=replace(described.env, backend="mujoco"))
    filled = filled_with(described, task)
    renderer = replace(filled.env, renderer="auto")  # for the tasks among them whose images this project draws
    return replace(filled, policy=replace(filled.policy, asset_id=asset_id), env=renderer)


def single(config: JobConfig) -> JobConfig:
    """The job of the one task that is meant, without the suite.

    Raises:
        InvalidJob: several are meant.
    """
    if not config.suite:
        return config
    names = names_of(config)
    if len(names) > 1:
        cause = f"this verb is for one task, {config.env.task} has {len(names)}: {', '.join(names)}"
        raise InvalidJob.of("suite-one-task", cause, f"name one of them, as in --task {names[0]}")
    return replace(for_task(config, names[0]), suite={})


def narrowed(config: JobConfig) -> JobConfig:
    """The job with nothing but the tasks that are meant: without a suite if that is one."""
    names = names_of(config)
    if not config.suite or names == tuple(config.suite["order"]):
        return config
    if len(names) == 1:
        return single(config)
    return _filled(replace(config, suite={}), Suite(",".join(names), tasks_of(config), config.suite["statistics"]))


def with_tasks(config: JobConfig, chosen: frozenset[str]) -> JobConfig:
    """The config with the task or the tasks that ``env.task`` names described in it, and with the values that they
    decide; `task.with_task` says the same of a single task.

    Raises:
        InvalidJob: there is no such task, the description of one or of the suite is wrong, or `chosen` has a key that
            each task of a suite decides for itself.
    """
    text = config.env.task
    if config.suite:
        if "env.task" not in chosen or text == config.suite["name"]:
            return _refusing(config, chosen)
        meant = [_member(config, part.strip()) for part in text.split(",") if part.strip()]
        if all(name in config.suite["tasks"] for name in meant):
            _refusing(config, chosen)
            some = replace(config, env=replace(config.env, task=",".join(meant)))
            return for_task(some, meant[0]) if len(meant) == 1 else some
        config = replace(config, suite={})
    suite = find_suite(text, partial(_found, layout=config.policy.state_layout))
    if suite is None:
        return with_task(config, chosen)
    return _refusing(_filled(config, suite), chosen)


def _member(config: JobConfig, name: str) -> str:
    """The name of the task of the suite that a YAML file describes, if it does; any other name as it is."""
    if not name.endswith((".yaml", ".yml")) or find_suite(name) is not None:
        return name
    task = find_task(name)
    own = config.suite["tasks"].get(task.name)
    return name if own is None or differences(from_dict(own, name), task) else task.name


def _found(name: str, layout: str) -> Task:
    task = find_task(name)
    return stack_cube(name, layout) if task.env is not None and task.env.kind == BUILTIN else task


def _filled(config: JobConfig, suite: Suite) -> JobConfig:
    """The config of the whole suite. What a task decides is that of the first one, or the largest number; the jobs of
    the tasks (`for_task`) have their own."""
    first, envs = suite.tasks[0], [task.env for task in suite.tasks if task.env is not None]
    policy = replace(
        config.policy,
        env_action_dim=max(task.action.dims for task in suite.tasks),
        delta_actions=first.action.delta,
        asset_id=suite.asset_ids[first.name],
    )
    env = replace(config.env, task=suite.name)
    if envs and all(each.kind != BUILTIN for each in envs):
        env = replace(env, backend=envs[0].kind, max_episode_steps=max(each.max_steps for each in envs))
    own = {} if first.env is not None and first.env.kind == BUILTIN else first.as_dict()
    return replace(config, task=own, suite=suite.as_dict(), policy=policy, env=env)


def _refusing(config: JobConfig, chosen: frozenset[str]) -> JobConfig:
    problems = [
        Problem("suite-key", f"{key} cannot be set for a suite: each task has its own", "leave it out")
        for key in OF_EACH_TASK
        if key in chosen
    ]
    if problems:
        raise InvalidJob(problems)
    return config
