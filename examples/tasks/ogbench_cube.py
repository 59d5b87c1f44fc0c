"""OGBench's cubes as its own data are collected: start and goal depend on the seed alone, and there is an oracle.

In its mode for evaluations, OGBench moves the arm by unseeded actions before every episode, so that two episodes of one
seed differ.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from ogbench.manipspace.envs.cube_env import CubeEnv
from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle


class Cube(CubeEnv):
    """Where the hand is (x, y, z in m, cosine and sine of its yaw), the gripper (how far it is closed, whether it has
    contact; both in [0, 1]), and the image of the camera in front."""

    def __init__(self, env_type: str, image_size: int) -> None:
        size = {"width": image_size, "height": image_size}
        super().__init__(env_type, mode="data_collection", terminate_at_goal=False, **size)

    def compute_observation(self) -> dict[str, np.ndarray]:
        seen = self.compute_ob_info()
        yaw = seen["proprio/effector_yaw"]
        return {
            "effector": np.concatenate([seen["proprio/effector_pos"], np.cos(yaw), np.sin(yaw)]),
            "gripper": np.concatenate([seen["proprio/gripper_opening"], seen["proprio/gripper_contact"]]),
        }

    def observe_images(self) -> dict[str, np.ndarray]:
        """The image, (image_size, image_size, 3) uint8."""
        return {"pixels/front": self.render(camera="front")}

    def _initialize_renderer(self) -> None:
        # Shadows and multisampling take most of the time of an image on a CPU.
        self._model.vis.quality.shadowsize = self._model.vis.quality.offsamples = 0
        super()._initialize_renderer()
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = False


class Oracle:
    """OGBench's oracle, which reads the pose of the cube and of its goal."""

    def __init__(self, env: Cube) -> None:
        self.env, self.oracle = env, CubeMarkovOracle(env=env)

    def reset(self, seed: int) -> None:
        """Begin an episode. Where the hand goes in the end is drawn from numpy's global generator, here and nowhere
        else."""
        np.random.seed(seed)
        self.oracle.reset(None, self.env.compute_ob_info())

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """(5,) the action."""
        return self.oracle.select_action(observation, self.env.compute_ob_info())
