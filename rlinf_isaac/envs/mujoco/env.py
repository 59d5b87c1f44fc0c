"""The embedded stack-cube environment: N independent MuJoCo simulations behind gymnasium's vector interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from rlinf_isaac.envs.mujoco.rendering import Renderer, choose_renderer, make_renderer
from rlinf_isaac.envs.mujoco.simulation import Simulation
from rlinf_isaac.envs.stack_cube import contract, terms
from rlinf_isaac.envs.stack_cube.backends import check_sizes, check_task
from rlinf_isaac.envs.stack_cube.vector import StackCubeEnv
from rlinf_isaac.envs.vector import ChunkStep, EnvIdentity, Observation, checked_actions, indices
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.task import Task
from rlinf_isaac.tasks.variation import Variation


class StackCubeVectorEnv(StackCubeEnv):
    """`StackCubeEnv` in MuJoCo, in this process. Their environments take each control step together."""

    def __init__(
        self,
        num_envs: int,
        task: Task,
        image_size: int = contract.DEFAULT_IMAGE_SIZE,
        renderer: str = "auto",
        max_episode_steps: int = 600,
        varied: Variation | None = None,
    ) -> None:
        """
        Args:
            num_envs: number of environments.
            task: one of `tasks.shipped.stack_cube`.
            image_size: width and height of both cameras' images in pixels.
            renderer: ``egl``, ``rays`` (no GL), or ``auto``, which uses EGL if it works.
            max_episode_steps: control steps until time-out.
            varied: what differs from the usual scene, in each episode; None: nothing. The identity does not say it.

        Raises:
            SimulatorError: unknown task or renderer, or EGL was asked for and does not work.
        """
        if problems := check_task("mujoco", task.name) + check_sizes(num_envs, image_size, max_episode_steps):
            raise SimulatorError(problems)
        super().__init__(num_envs, task, image_size)
        self._simulation = Simulation(num_envs, self.stacking.num_cubes, varied)
        self._renderers: dict[int, Renderer] = {}
        self.identity = EnvIdentity(
            backend=f"mujoco-{mujoco.__version__}",
            task=task.name,
            prompt=self.stacking.prompt,
            renderer=choose_renderer(renderer),
            image_size=image_size,
            control_hz=contract.CONTROL_HZ,
            max_episode_steps=max_episode_steps,
            assets=bytes_digest(self._simulation.mjcf.encode()),
        )
        self._last_action = np.zeros((num_envs, contract.ACTION_DIM), np.float32)
        self._images = {
            camera: np.zeros((num_envs, image_size, image_size, 3), np.uint8) for camera in contract.CAMERA_NAMES
        }
        self._stale = np.zeros(num_envs, bool)  # rows whose images are older than their last step

    def chunk_step(
        self,
        actions: np.ndarray,
        active: np.ndarray,
        on_frame: Callable[[int, int], None] | None = None,
        images: bool = True,
    ) -> ChunkStep:
        """See `StackCubeEnv.chunk_step`. Images are rendered only at the end of the chunk."""
        actions, active = checked_actions(actions, active, self._done, contract.ACTION_DIM)
        horizon = actions.shape[1]
        rewards = np.zeros((self.num_envs, horizon), np.float32)
        steps = np.zeros(self.num_envs, np.int64)
        subtasks = {name: np.zeros(self.num_envs, bool) for name in self.stacking.subtasks}
        playing = np.flatnonzero(active)
        for t in range(horizon):
            self._control_step(playing, actions[playing, t])
            rewards[playing, t] = self._success[playing]
            steps[playing] += 1
            for name, reached in self._subtask_terms(playing).items():
                subtasks[name][playing] |= reached
            if on_frame is not None:
                for i in playing:
                    on_frame(int(i), t)
            playing = playing[~self._done[playing]]
            if not len(playing):
                break
        self._stale |= active
        return ChunkStep(self.observe(images), rewards, steps, subtasks=subtasks, **self._ended())

    def observe(self, images: bool = True) -> Observation:
        policy = self._simulation.measured.policy(self._last_action)
        if images:
            self.render_images(self._stale)
            policy |= {camera: rendered.copy() for camera, rendered in self._images.items()}
        return {"policy": policy, "subtask_terms": self._subtask_terms(slice(None))}

    def render_frame(self, env_index: int, size: int, cameras: Sequence[str] = contract.CAMERA_NAMES) -> np.ndarray:
        """A frame for a video: (size, cameras * size, 3) uint8, by default table camera left and wrist camera right.

        Args:
            env_index: index of the env.
            size: height, and width per camera, in pixels. It need not equal the observation's image size.
            cameras: from left to right; ``overview_cam`` (not part of the contract) shows the whole scene.
        """
        renderer, data = self._renderer(size), self._simulation.data[env_index]
        return np.concatenate([renderer.render(data, camera) for camera in cameras], axis=1)

    def render_images(self, rows: np.ndarray) -> None:
        """Bring the images of these rows (N,) up to date, which later observations have."""
        renderer = self._renderer(self.identity.image_size)
        for i in indices(rows):
            for camera, rendered in self._images.items():
                rendered[i] = renderer.render(self._simulation.data[i], camera)
        self._stale = self._stale & ~rows

    def render_into(self, images: Mapping[str, np.ndarray]) -> None:
        """Render into these arrays from now on, camera -> (N, image_size, image_size, 3) uint8."""
        self._images = {camera: images[camera] for camera in self._images}

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _start(self, seeds: Mapping[int, int]) -> None:
        rows = np.isin(np.arange(self.num_envs), list(seeds))
        for i, seed in seeds.items():
            self._simulation.reset(i, seed)
        self._last_action[rows] = 0.0
        self.render_images(rows)

    def _control_step(self, rows: np.ndarray, actions: np.ndarray) -> None:
        self._simulation.control_step(rows.tolist(), actions)
        self._last_action[rows] = actions
        self.elapsed[rows] += 1
        measured = self._simulation.measured
        positions = measured.cube_pos[rows]
        self._stands[rows] = stands = terms.stack_stands(positions, measured.gripper_pos[rows])
        self._touched[rows] |= stands
        self._success[rows] = stands & terms.at_rest(measured.cube_vel[rows])
        self._dropped[rows] = terms.dropped(positions)
        self._time_out[rows] = self.elapsed[rows] >= self.identity.max_episode_steps
        self._done[rows] = self._success[rows] | self._dropped[rows] | self._time_out[rows]

    def _subtask_terms(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        measured = self._simulation.measured
        return terms.subtask_terms(
            self.stacking.subtasks, measured.cube_pos[rows], measured.eef_pos[rows], measured.gripper_pos[rows]
        )

    def _renderer(self, size: int) -> Renderer:
        if self.closed:
            raise SimulatorError.of("env-closed", "the environment is closed", "make a new one")
        if size not in self._renderers:
            self._renderers[size] = make_renderer(self.identity.renderer, self._simulation.model, size)
        return self._renderers[size]
