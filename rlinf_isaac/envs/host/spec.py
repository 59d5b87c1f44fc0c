"""The observation of an environment that a worker has reported: its space, and whether it is what a task says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rlinf_isaac.envs.host.protocol import Leaf
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.tasks.paths import read_path
from rlinf_isaac.tasks.task import Task


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> value as the dicts that the paths step into."""
    found: dict[str, Any] = {}
    for path, value in leaves.items():
        *steps, name = path.split("/")
        inside = found
        for step in steps:
            inside = inside.setdefault(step, {})
        inside[name] = value
    return found


def observation_space(leaves: Mapping[str, Leaf]) -> spaces.Dict:
    """The space of one env's observation; numbers have no bounds but those of their dtype."""
    return _space(nested(leaves))


def _space(entries: Mapping[str, Any]) -> spaces.Dict:
    return spaces.Dict({name: _box(each) if isinstance(each, Leaf) else _space(each) for name, each in entries.items()})


def _box(leaf: Leaf) -> spaces.Box:
    dtype = np.dtype(leaf.dtype)
    low, high = (-np.inf, np.inf) if dtype.kind == "f" else (0, 1)
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return spaces.Box(low, high, leaf.shape, dtype.type)


def check_report(task: Task, leaves: Mapping[str, Leaf], report: Mapping[str, Any]) -> list[Problem]:
    """What of an environment is not as its task says.

    Args:
        task: the task.
        leaves: path -> array, without the axis of the envs.
        report: as `worker.rows.Rows.report`.
    """
    example = nested({path: np.zeros((1, *leaf.shape), leaf.dtype) for path, leaf in leaves.items()})
    problems = []
    for slot, camera in task.cameras.items():
        try:
            image = read_path(example, str(camera.env))
        except KeyError as error:
            problems.append(_no_such_path(task, f"cameras.{slot}.env", error))
            continue
        if image.dtype != np.uint8 or image.ndim != 4 or image.shape[-1] != 3:
            cause = f"cameras.{slot}.env is {camera.env}, which is {image.dtype} {image.shape[1:]}"
            cure = "name an image of height x width x 3 uint8; an environment of another form takes a wrapper"
            problems.append(Problem("env-camera", cause, cure))
    dims = 0
    for path in task.state.env:
        try:
            dims += int(np.prod(read_path(example, path).shape[1:]))
        except KeyError as error:
            problems.append(_no_such_path(task, "state.env", error))
            dims = task.state.dims
    if dims != task.state.dims:
        cause = f"state.env ({', '.join(task.state.env)}) has {dims} numbers, state.dims is {task.state.dims}"
        cure = "correct the one or the other; a path may end in a slice, [0:7]"
        problems.append(Problem("env-state-dims", cause, cure))
    action, shape = report["action"], report["action"]["shape"]
    if shape is None or int(np.prod(shape)) != task.action.dims:
        cause = f"the environment's actions are {action['space']}, action.dims is {task.action.dims}"
        problems.append(Problem("env-action-dims", cause, "actions are a Box of as many numbers as action.dims says"))
    if not task.prompts and report.get("instructed") is False:
        cause = f"the task {task.name} leaves its prompt to the environment, which gives none (task_descriptions)"
        problems.append(Problem("no-prompt", cause, "write the prompt into the task, or a list of prompts"))
    return problems


def _no_such_path(task: Task, place: str, error: KeyError) -> Problem:
    return Problem("no-such-path", f"{place}: {error.args[0]}", f"name one of these in the description of {task.name}")
