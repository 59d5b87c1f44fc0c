"""The vector environment for IsaacLab's stack-cube task, in the parent process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from rlinf_isaac.envs.isaaclab.hosted import FILM, VIDEO_SIZE, hosted_task
from rlinf_isaac.envs.isaaclab.task_env import LabEnv
from rlinf_isaac.envs.isaaclab.versions import PYTHON_VARIABLE, check_python
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.backends import check_renderer, check_sizes, check_task
from rlinf_isaac.envs.stack_cube.vector import StackCubeEnv
from rlinf_isaac.envs.vector import ChunkStep, EnvIdentity, Observation, checked_actions
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.success_rules import TOUCHED_AT_END, TOUCHED_ONCE
from rlinf_isaac.tasks.task import Task

RENDERER = "newton"
SUBTASK = "subtask/"
START_SECONDS = 900.0
"""Time limit for the start of IsaacLab. The first start on a machine compiles Warp's kernels, which takes minutes if
there are few cores."""


class IsaacLabVectorEnv(StackCubeEnv):
    """`StackCubeEnv` in IsaacLab 3.0: the rows of a `LabEnv`, in the form of the contract.

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
        super().__init__(num_envs, task, image_size)
        self.lab = _Hosted(
            num_envs,
            hosted_task(task),
            max_episode_steps,
            python,
            device,
            start_s,
            stack_cube={"image_size": image_size, "max_steps": max_episode_steps},
        )
        self.identity = EnvIdentity(
            backend=self.lab.report["backend"],
            task=task.name,
            prompt=self.stacking.prompt,
            renderer=RENDERER,
            image_size=image_size,
            control_hz=contract.CONTROL_HZ,
            max_episode_steps=max_episode_steps,
            assets=self.lab.report["assets"],
        )
        self._reached = {name: np.zeros(num_envs) for name in self.stacking.subtasks}

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
        chunk = self.lab.chunk_step(actions, active, on_frame, images)
        took, subtasks = chunk.steps > 0, {}
        self.elapsed += chunk.steps
        self._success[took], self._dropped[took] = chunk.success[took], chunk.failures["failure"][took]
        self._time_out[took] = self.elapsed[took] >= self.identity.max_episode_steps
        for name, flags in ((TOUCHED_ONCE, self._touched), (TOUCHED_AT_END, self._stands)):
            if took.any():
                flags[took] = self._success[took] | (chunk.extras[name][took] > 0)
        for name, before in self._reached.items():
            count = np.where(took, chunk.extras.get(f"{SUBTASK}{name}", before), before)
            subtasks[name], self._reached[name] = count > before, count
        rewards = np.zeros(actions.shape[:2], np.float32)
        solved = np.flatnonzero(took & self._success)
        rewards[solved, chunk.steps[solved] - 1] = 1.0
        self._done |= took & (self._success | self._dropped | self._time_out)
        if took.any():
            # Envs that are not active were stepped too; their state is undefined until they are reset.
            self._done[~active] = True
        return ChunkStep(chunk.observation, rewards, chunk.steps, subtasks=subtasks, **self._ended())

    def observe(self, images: bool = True) -> Observation:
        return self.lab.observe(images)

    def render_frame(self, env_index: int, size: int) -> np.ndarray:
        """A frame for a video: (size, 2 x size, 3) uint8, table camera left, wrist camera right.

        It is rendered at `hosted.VIDEO_SIZE` and resized to `size`.
        """
        frame = self.lab.film(env_index)
        if size == VIDEO_SIZE:
            return frame
        return np.asarray(Image.fromarray(frame).resize((2 * size, size), Image.Resampling.BICUBIC))

    def close_extras(self, **kwargs: Any) -> None:
        if hasattr(self, "lab"):
            self.lab.close()

    def _start(self, seeds: Mapping[int, int]) -> None:
        rows = np.isin(np.arange(self.num_envs), list(seeds))
        self.lab.reset(seed=[seeds.get(i, 0) for i in range(self.num_envs)], options={"reset_mask": rows})
        for count in self._reached.values():
            count[rows] = 0


class _Hosted(LabEnv):
    """The rows of IsaacLab's stack-cube, with films."""

    _filmed = False

    def observe(self, images: bool = True) -> Observation:
        """The contract's arrays of all envs, as copies."""
        if images:
            self._draw(self._stale)
        spec = contract.observation_spec(contract.TASKS[self.task.name], 0)
        return {
            group: {
                key: self._shared.observation[f"{group}/{key}"].copy()
                for key in arrays
                if images or key not in contract.CAMERA_NAMES
            }
            for group, arrays in spec.items()
        }

    def film(self, row: int) -> np.ndarray:
        """(VIDEO_SIZE, 2 x VIDEO_SIZE, 3) uint8, both cameras of an env as they see it now."""
        if not self._filmed:
            self._about("films", list(range(self.num_envs)))
        self._filmed = True
        return np.concatenate(
            [self._shared.observation[f"{FILM}/{name}"][row] for name in contract.CAMERA_NAMES], axis=1
        )

    def _start(self, seeds: Mapping[int, int]) -> None:
        self._filmed = False
        super()._start(seeds)

    def _play(self, *args: Any) -> None:
        self._filmed = False
        super()._play(*args)
