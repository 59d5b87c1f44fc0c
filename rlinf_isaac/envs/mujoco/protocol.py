"""The memory that `processes.StackCubeProcesses` and its workers share."""

from __future__ import annotations

import numpy as np

from rlinf_isaac.envs.host.protocol import map_arrays
from rlinf_isaac.envs.stack_cube import contract

BLOCK = 16
"""Control steps that a worker takes at most before it answers."""


class SharedArrays:
    """Arrays of all rows, of which each worker writes its own.

    Attributes:
        observation: group -> key -> (N, ...), as in `contract.observation_spec`.
        actions: (N, BLOCK, 7) float32, the actions of the next steps.
        active: (N,) bool, the rows that take them.
        drawn: (N,) bool, the rows whose images are rendered next.
        steps: (N,) int64, how many steps a row has taken; an episode may end before all of them.
        rewards: (N, BLOCK) float32, of these steps.
        reached: subtask -> (N,) bool, whether it was reached at any of these steps.
        success, dropped, time_out: (N,) bool, the terms after the last of them.
        touched, stands: (N,) bool, as in `StackCubeEnv`, after the last of them.
    """

    FLAGS = ("active", "drawn", "success", "dropped", "time_out", "touched", "stands")

    def __init__(self, fd: int, num_envs: int, task: contract.TaskSpec, image_size: int) -> None:
        observation = {
            f"observation/{group}/{key}": ((num_envs, *spec.shape), spec.dtype)
            for group, specs in contract.observation_spec(task, image_size).items()
            for key, spec in specs.items()
        }
        layout: dict[str, tuple[tuple[int, ...], np.dtype]] = observation | {
            "actions": ((num_envs, BLOCK, contract.ACTION_DIM), np.dtype(np.float32)),
            "rewards": ((num_envs, BLOCK), np.dtype(np.float32)),
            "steps": ((num_envs,), np.dtype(np.int64)),
        }
        layout |= {name: ((num_envs,), np.dtype(bool)) for name in self.FLAGS}
        layout |= {f"reached/{name}": ((num_envs,), np.dtype(bool)) for name in task.subtasks}
        arrays = map_arrays(fd, layout)
        self.actions, self.rewards, self.steps = arrays["actions"], arrays["rewards"], arrays["steps"]
        self.active, self.drawn = arrays["active"], arrays["drawn"]
        self.success, self.dropped, self.time_out = arrays["success"], arrays["dropped"], arrays["time_out"]
        self.touched, self.stands = arrays["touched"], arrays["stands"]
        self.reached = {name: arrays[f"reached/{name}"] for name in task.subtasks}
        self.observation: dict[str, dict[str, np.ndarray]] = {}
        for name in observation:
            _, group, key = name.split("/")
            self.observation.setdefault(group, {})[key] = arrays[name]


def map_frame(fd: int, size: int) -> np.ndarray:
    """The frame for a video, (size, cameras x size, 3) uint8, in a memory of its own that grows with it."""
    shape = (size, len(contract.CAMERA_NAMES) * size, 3)
    return map_arrays(fd, {"frame": (shape, np.dtype(np.uint8))})["frame"]
