"""What each simulator has of the task: which tasks, and which renderers. Nothing of a simulator is imported.

The preflight asks before a simulator is imported; the environments ask again, for they can be built without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rlinf_isaac.envs.stack_cube.contract import TASKS
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.tasks.variation import AXES


class Backend(NamedTuple):
    """Names that the keys ``env.task``, ``env.renderer`` and ``vary.axes`` may have with a backend."""

    tasks: tuple[str, ...]
    renderers: tuple[str, ...]
    axes: tuple[str, ...]


BACKENDS: Mapping[str, Backend] = {
    "mujoco": Backend(tuple(TASKS), ("auto", "egl", "rays"), AXES),
    "isaaclab": Backend(("stack3",), ("auto", "newton"), ("delay",)),
}
"""By the names that the key ``env.backend`` may have."""


def check_task(backend: str, task: str) -> list[Problem]:
    """What is wrong with a task of a known backend."""
    known = BACKENDS[backend].tasks
    if task in known:
        return []
    if task in TASKS:
        cause = f"env.task is {task}, IsaacLab's task has three cubes"
        return [Problem("isaaclab-task", cause, "set env.task=stack3")]
    return [Problem("bad-value", f"env.task is {task}", f"set it to one of {', '.join(known)}")]


def check_renderer(backend: str, renderer: str) -> list[Problem]:
    """What is wrong with a renderer of a known backend."""
    known = BACKENDS[backend].renderers
    if renderer in known:
        return []
    cure = f"with env.backend={backend} choose one of {', '.join(known)}"
    return [Problem("bad-value", f"env.renderer is {renderer}", cure)]


def check_axis(backend: str, axis: str) -> list[Problem]:
    """What is wrong with a robustness axis of a known backend."""
    known = BACKENDS[backend].axes
    if axis in known:
        return []
    cause = f"--vary {axis}: stack-cube in {backend} can vary {', '.join(known)} alone"
    return [Problem("vary-backend", cause, f"leave {axis} out, or evaluate with --env mujoco")]


def check_sizes(num_envs: int, image_size: int, max_episode_steps: int) -> list[Problem]:
    """What is wrong with the sizes of a vector of environments."""
    if min(num_envs, image_size, max_episode_steps) >= 1:
        return []
    sizes = f"num_envs {num_envs}, image_size {image_size}, max_episode_steps {max_episode_steps}"
    return [Problem("bad-value", sizes, "each must be at least 1")]
