"""gym-aloha whose images are drawn when asked for, in any size; its own draws three of 480 x 640 with every step."""

from __future__ import annotations

from typing import Any

import numpy as np
from gym_aloha.env import AlohaEnv


class Aloha(AlohaEnv):
    """The camera `top` and the joints' positions (14,)."""

    def __init__(self, task: str, height: int, width: int, shadows: bool = False) -> None:
        self.shadows = shadows  # they take most of the time of an image on a CPU
        super().__init__(task, "pixels_agent_pos", observation_height=height, observation_width=width)

    def observe_images(self) -> dict[str, np.ndarray]:
        """The image, (height, width, 3) uint8."""
        height, width, flags = self.observation_height, self.observation_width, {"shadow": self.shadows}
        return {"pixels/top": self._env.physics.render(height, width, "top", render_flag_overrides=flags)}

    def _make_env_task(self, task_name: str) -> Any:
        env = super()._make_env_task(task_name)
        if not self.shadows:
            env.physics.model.vis.quality.shadowsize = env.physics.model.vis.quality.offsamples = 0
        env.task.get_observation = lambda physics: {"qpos": env.task.get_qpos(physics)}
        return env

    def _format_raw_obs(self, raw_obs: dict[str, Any]) -> dict[str, Any]:
        return {"agent_pos": raw_obs["qpos"]}
