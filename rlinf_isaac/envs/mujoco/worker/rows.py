"""The environments of a worker, and what the orders do with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv
from rlinf_isaac.envs.mujoco.protocol import SharedArrays, map_frame
from rlinf_isaac.tasks.shipped.stack_cube import stack_cube
from rlinf_isaac.tasks.success_rules import TOUCHED_AT_END, TOUCHED_ONCE
from rlinf_isaac.tasks.variation import Variation


class Rows:
    """What `server.main` carries out orders on.

    Attributes:
        env: the rows of this worker, in this process.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        """
        Args:
            settings: ``rows``, the indices of the worker's rows, which follow each other; ``num_envs``, of all workers;
                ``task``, the name of the task; ``image_size``, ``renderer`` and ``max_episode_steps`` of the
                environments; ``varied``, axis and strength of a `Variation`, or None; ``memory`` and ``frame``,
                descriptors of what is shared.
        """
        first, count, size = settings["rows"][0], len(settings["rows"]), settings["image_size"]
        task, limit = stack_cube(settings["task"]), settings["max_episode_steps"]
        varied = Variation(*settings["varied"]) if settings["varied"] else None
        self.env = StackCubeVectorEnv(count, task, size, settings["renderer"], limit, varied)
        self._own = slice(first, first + count)
        self._shared = SharedArrays(settings["memory"], settings["num_envs"], self.env.stacking, size)
        # Images are rendered where the parent reads them.
        self.env.render_into({key: array[self._own] for key, array in self._shared.observation["policy"].items()})
        self._frame_fd, self._frame = settings["frame"], np.empty((0, 0, 3), np.uint8)

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> None:
        """Start the episodes of these rows."""
        of_row = {row - self._own.start: seed for row, seed in zip(rows, seeds, strict=True)}
        mask = np.isin(np.arange(self.env.num_envs), list(of_row))
        self.env.reset(seed=[of_row.get(i) for i in range(self.env.num_envs)], options={"reset_mask": mask})
        self._write()

    def step(self, count: int, images: bool) -> None:
        """Let the active rows take so many steps, or fewer where an episode ends; then render, with `images`."""
        shared, own = self._shared, self._own
        active = shared.active[own].copy()
        if active.any():
            step = self.env.chunk_step(shared.actions[own, :count], active, images=False)
            shared.rewards[own, :count], shared.steps[own] = step.rewards, step.steps
            for name, reached in step.subtasks.items():
                shared.reached[name][own] = reached
            shared.success[own], shared.dropped[own] = step.success, step.failures["drop"]
            shared.time_out[own] = step.time_out
            shared.touched[own], shared.stands[own] = step.extras[TOUCHED_ONCE], step.extras[TOUCHED_AT_END]
            self._write()
        if images:
            self.images()

    def images(self) -> None:
        """Render the images of the rows that are to be drawn."""
        self.env.render_images(self._shared.drawn[self._own])

    def frame(self, row: int, size: int) -> None:
        """Render a row's frame for a video."""
        if len(self._frame) != size:
            self._frame = map_frame(self._frame_fd, size)
        self._frame[:] = self.env.render_frame(row - self._own.start, size)

    def _write(self) -> None:
        """Put all of the observation but the images, which are there, into the shared memory."""
        for group, arrays in self.env.observe(images=False).items():
            for key, array in arrays.items():
                self._shared.observation[group][key][self._own] = array
