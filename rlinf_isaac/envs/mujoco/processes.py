"""The embedded stack-cube environment in worker processes, which step their rows at the same time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.envs.host.crew import Crew
from rlinf_isaac.envs.mujoco.protocol import BLOCK, SharedArrays, map_frame
from rlinf_isaac.envs.mujoco.rendering import choose_renderer
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.backends import check_sizes, check_task
from rlinf_isaac.envs.stack_cube.vector import StackCubeEnv
from rlinf_isaac.envs.vector import ChunkStep, EnvIdentity, Observation, checked_actions, indices
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.task import Task
from rlinf_isaac.tasks.variation import Variation

_SERVER = Path(__file__).parent / "worker" / "server.py"


class StackCubeProcesses(StackCubeEnv):
    """`StackCubeVectorEnv` whose rows are shared among processes. Results are the same, bit for bit.

    Attributes:
        crew: the processes.
    """

    def __init__(
        self,
        num_envs: int,
        task: Task,
        image_size: int = contract.DEFAULT_IMAGE_SIZE,
        renderer: str = "auto",
        max_episode_steps: int = 600,
        workers: int | None = None,
        varied: Variation | None = None,
    ) -> None:
        """
        Args:
            num_envs, task, image_size, renderer, max_episode_steps: as of `StackCubeVectorEnv`.
            workers: number of processes; None: as many as there are CPUs, but not more than environments.
            varied: as of `StackCubeVectorEnv`.

        Raises:
            SimulatorError: as `StackCubeVectorEnv`, or the processes have built different environments.
            SimulatorDied: a process did not start.
        """
        if problems := check_task("mujoco", task.name) + check_sizes(num_envs, image_size, max_episode_steps):
            raise SimulatorError(problems)
        super().__init__(num_envs, task, image_size)
        memory, self._frame_fd = os.memfd_create("rlinf-isaac-rows"), os.memfd_create("rlinf-isaac-frame")
        self._frame = np.empty((0, 0, 3), np.uint8)
        self._stale = np.zeros(num_envs, bool)  # rows whose images are older than their last step
        settings = {
            "path": sys.path,
            "task": task.name,
            "num_envs": num_envs,
            "image_size": image_size,
            "renderer": choose_renderer(renderer),  # once, so that all have the same
            "max_episode_steps": max_episode_steps,
            "varied": None if varied is None else [varied.axis, varied.strength],
            "memory": memory,
            "frame": self._frame_fd,
        }
        shared, name = (memory, self._frame_fd), f"A process of {task.name}"
        try:
            self._shared = SharedArrays(memory, num_envs, self.stacking, image_size)
            self.crew = Crew(name, sys.executable, _SERVER, settings, num_envs, workers, shared, logs="mujoco")
        except BaseException:
            os.close(self._frame_fd)
            raise
        finally:
            os.close(memory)  # all have mapped it
        identities = [EnvIdentity(**report["identity"]) for report in self.crew.reports]
        self.identity = identities[0]
        if any(identity != self.identity for identity in identities):
            self.close()
            cause = f"the processes of {task.name} have built different environments"
            raise SimulatorError.of("env-not-made", cause, "leave this project's files as they are while a job starts")

    def chunk_step(
        self,
        actions: np.ndarray,
        active: np.ndarray,
        on_frame: Callable[[int, int], None] | None = None,
        images: bool = True,
    ) -> ChunkStep:
        """See `TaskEnv.chunk_step`.

        Raises:
            SimulatorDied: a process has ended, failed, or did not finish in time.
        """
        actions, active = checked_actions(actions, active, self._done, contract.ACTION_DIM)
        shared, horizon = self._shared, actions.shape[1]
        rewards = np.zeros((self.num_envs, horizon), np.float32)
        steps = np.zeros(self.num_envs, np.int64)
        subtasks = {name: np.zeros(self.num_envs, bool) for name in self.stacking.subtasks}
        shared.drawn[:] = active
        # Rows take whole blocks of steps by themselves, except where somebody wants to look after each. With the last
        # block, each process renders as soon as its rows have taken theirs.
        block, alive, drawn = BLOCK if on_frame is None else 1, active.copy(), False
        for t in range(0, horizon, block):
            if not alive.any():
                break
            count = min(block, horizon - t)
            draw = images and t + count == horizon
            shared.actions[:, :count], shared.active[:] = actions[:, t : t + count], alive
            self._order("step", active if draw else alive, steps=count, count=count, images=draw)
            drawn |= draw
            rewards[alive, t : t + count] = shared.rewards[alive, :count]
            for counts in (steps, self.elapsed):
                counts[alive] += shared.steps[alive]
            for name, reached in shared.reached.items():
                subtasks[name] |= alive & reached
            self._success[alive], self._dropped[alive] = shared.success[alive], shared.dropped[alive]
            self._time_out[alive] = shared.time_out[alive]
            self._touched[alive], self._stands[alive] = shared.touched[alive], shared.stands[alive]
            self._done[alive] = (self._success | self._dropped | self._time_out)[alive]
            if on_frame is not None:
                for i in indices(alive):
                    on_frame(i, t)
            alive &= ~self._done
        if not drawn:
            self._stale |= active
        return ChunkStep(self.observe(images), rewards, steps, subtasks=subtasks, **self._ended())

    def observe(self, images: bool = True) -> Observation:
        if images and self._stale.any():
            self._shared.drawn[:] = self._stale
            self._order("images", self._stale)
            self._stale[:] = False
        return {
            group: {key: array.copy() for key, array in arrays.items() if images or key not in contract.CAMERA_NAMES}
            for group, arrays in self._shared.observation.items()
        }

    def render_frame(self, env_index: int, size: int) -> np.ndarray:
        """A frame for a video: (size, cameras x size, 3) uint8, table camera left and wrist camera right."""
        if len(self._frame) != size:
            self._frame = map_frame(self._frame_fd, size)
        self._order("frame", np.arange(self.num_envs) == env_index, row=env_index, size=size)
        return self._frame.copy()

    def close_extras(self, **kwargs: Any) -> None:
        if hasattr(self, "crew"):  # a VectorEnv of gymnasium 0.29 closes itself, even one that was never made
            self.crew.close()
            os.close(self._frame_fd)

    def _start(self, seeds: Mapping[int, int]) -> None:
        self._check_open()
        self.crew.order_rows("reset", list(seeds), seeds=list(seeds.values()))
        self._stale[list(seeds)] = False

    def _order(self, do: str, rows: np.ndarray, steps: int = 0, **values: Any) -> None:
        self._check_open()
        self.crew.order(do, rows, steps, **values)

    def _check_open(self) -> None:
        if self.closed:
            raise SimulatorError.of("env-closed", "the environment is closed", "make a new one")
