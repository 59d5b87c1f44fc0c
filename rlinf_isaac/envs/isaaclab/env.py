"""The vector environment for IsaacLab's stack-cube task, in the parent process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from rlinf_isaac.envs.isaaclab.client import START_SECONDS, SimulatorProcess
from rlinf_isaac.envs.isaaclab.protocol import VIDEO_SIZE, SharedArrays
from rlinf_isaac.envs.isaaclab.versions import PYTHON_VARIABLE, check_python
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.backends import check_renderer, check_sizes, check_task
from rlinf_isaac.envs.stack_cube.vector import StackCubeEnv
from rlinf_isaac.envs.vector import ChunkStep, EnvIdentity, Observation, checked_actions, indices
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.task import Task

RENDERER = "newton"


class IsaacLabVectorEnv(StackCubeEnv):
    """`StackCubeEnv` in IsaacLab 3.0, which runs in a separate process.

    IsaacLab always steps all envs together, so an env that is not active, or has ended, cannot be paused. Its row of
    the observation is kept, and it must be reset before it is stepped again.
    """

    def __init__(
        self,
        num_envs: int,
        task: Task,
        image_size: int = contract.DEFAULT_IMAGE_SIZE,
        renderer: str = "auto",
        max_episode_steps: int = 600,
        python: str | None = None,
        start_s: float = START_SECONDS,
        device: str = "cpu",
    ) -> None:
        """
        Args:
            num_envs: number of environments.
            task: ``stack3`` of `tasks.shipped.stack_cube`; IsaacLab's task has three cubes.
            image_size: width and height of both cameras' images in pixels.
            renderer: ``newton`` or ``auto``.
            max_episode_steps: control steps until time-out.
            python: interpreter that has IsaacLab. None uses the one that ISAACLAB_PYTHON names.
            start_s: time limit for the start of IsaacLab.
            device: torch device of physics and renderer: ``cpu``, ``cuda`` or ``cuda:<n>``.

        Raises:
            SimulatorError: this backend does not support an argument, or there is no interpreter with IsaacLab.
            SimulatorDied: IsaacLab did not start.
        """
        python = python or os.environ.get(PYTHON_VARIABLE)
        problems = check_python(python) + check_task("isaaclab", task.name) + check_renderer("isaaclab", renderer)
        if problems := problems + check_sizes(num_envs, image_size, max_episode_steps):
            raise SimulatorError(problems)
        assert python is not None
        super().__init__(num_envs, task, image_size)
        self._shared = SharedArrays(num_envs, self.stacking, image_size)
        settings = {
            "num_envs": num_envs,
            "task": task.name,
            "image_size": image_size,
            "max_episode_steps": max_episode_steps,
            "device": device,
            "assets": str(cache_directory("isaaclab") / "assets"),
            "memory": self._shared.fd,
        }
        try:
            self.simulator = SimulatorProcess(python, settings, start_s)
        finally:
            os.close(self._shared.fd)  # both processes have mapped the memory and do not need the descriptor
        ready = self.simulator.ready
        self.identity = EnvIdentity(
            backend=f"isaaclab-{ready['version']}/{ready['physics']}/{device.partition(':')[0]}",
            task=task.name,
            prompt=self.stacking.prompt,
            renderer=RENDERER,
            image_size=image_size,
            control_hz=contract.CONTROL_HZ,
            max_episode_steps=max_episode_steps,
            assets=ready["assets"],
        )
        self._observation = {
            group: {key: np.zeros_like(array) for key, array in arrays.items()}
            for group, arrays in self._shared.observation.items()
        }
        self._frames_current = False

    def chunk_step(
        self,
        actions: np.ndarray,
        active: np.ndarray,
        on_frame: Callable[[int, int], None] | None = None,
        images: bool = True,
    ) -> ChunkStep:
        """Up to T control steps of every active env. See `StackCubeEnv.chunk_step`.

        Envs step in parallel: ``on_frame(i, t)`` is called for all envs after control step t, before step t + 1.
        """
        actions, active = checked_actions(actions, active, self._done, contract.ACTION_DIM)
        horizon = actions.shape[1]
        rewards = np.zeros((self.num_envs, horizon), np.float32)
        steps = np.zeros(self.num_envs, np.int64)
        subtasks = {name: np.zeros(self.num_envs, bool) for name in self.stacking.subtasks}
        alive = active.copy()
        for t in range(horizon):
            if not alive.any():
                break
            self._shared.actions[:], self._shared.active[:] = actions[:, t], alive
            self._order("step")
            shared = self._shared
            ended = alive & (shared.success | shared.dropped | shared.time_out)
            # Images are rendered only for observations that are returned: the last ones of the envs.
            rendered = images and (ended.any() or t == horizon - 1)
            if rendered:
                self._order("images")
            self._take(alive, images=rendered)
            self.elapsed[alive] += 1
            steps[alive] += 1
            rewards[alive, t] = self._success[alive]
            for name, reached in self._observation["subtask_terms"].items():
                subtasks[name] |= alive & reached
            self._done |= ended
            if on_frame is not None:
                for i in indices(alive):
                    on_frame(i, t)
            alive &= ~self._done
        if steps.any():
            # Envs that are not active were stepped too; their state is undefined until they are reset.
            self._done[~active] = True
        return ChunkStep(self.observe(images), rewards, steps, subtasks=subtasks, **self._ended())

    def observe(self, images: bool = True) -> Observation:
        return {
            group: {key: array.copy() for key, array in arrays.items() if images or key not in contract.CAMERA_NAMES}
            for group, arrays in self._observation.items()
        }

    def render_frame(self, env_index: int, size: int) -> np.ndarray:
        """A frame for a video: (size, 2 x size, 3) uint8, table camera left, wrist camera right.

        It is rendered at `protocol.VIDEO_SIZE` and resized to `size`.
        """
        if not self._frames_current:
            self._order("frames")
        frame = self._shared.frames[env_index]
        if size == VIDEO_SIZE:
            return frame.copy()
        return np.asarray(Image.fromarray(frame).resize((2 * size, size), Image.Resampling.BICUBIC))

    def close_extras(self, **kwargs: Any) -> None:
        self.simulator.close()

    def _start(self, seeds: Mapping[int, int]) -> None:
        self._order("reset", rows=list(seeds), seeds=list(seeds.values()))
        self._order("images")
        self._take(np.isin(np.arange(self.num_envs), list(seeds)), images=True)

    def _order(self, do: str, **values: Any) -> None:
        if self.closed:
            raise SimulatorError.of("env-closed", "the environment is closed", "make a new one")
        self.simulator.order(do, **values)
        self._frames_current = do == "frames" or (self._frames_current and do == "images")

    def _take(self, rows: np.ndarray, *, images: bool) -> None:
        """Copy these rows of the shared memory into the observation and the flags. Other rows stay unchanged."""
        for group, arrays in self._observation.items():
            for key, array in arrays.items():
                if images or key not in contract.CAMERA_NAMES:
                    array[rows] = self._shared.observation[group][key][rows]
        for name in ("success", "dropped", "time_out"):
            getattr(self, f"_{name}")[rows] = getattr(self._shared, name)[rows]
