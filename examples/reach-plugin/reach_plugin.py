"""A task from a package of one's own: a red hand reaches a green goal in the plane."""

import gymnasium
import numpy as np
from gymnasium import spaces

from rlinf_isaac.tasks.task import Action, Camera, Environment, Expert, Task, Vector


class Reach(gymnasium.Env):
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.hand, self.goal = self.np_random.uniform(0.1, 0.9, (2, 2))
        return self._observe(), {}

    def step(self, action):
        self.hand = np.clip(self.hand + 0.05 * action, 0, 1)
        distance = float(np.linalg.norm(self.goal - self.hand))
        return self._observe(), -distance, False, False, {"is_success": distance < 0.06, "distance": distance}

    def _observe(self):
        image = np.zeros((64, 64, 3), np.uint8)
        for colour, (x, y) in enumerate((self.hand, self.goal)):
            image[int(60 * y) : int(60 * y) + 4, int(60 * x) : int(60 * x) + 4, colour] = 255
        return {"image": image, "hand": self.hand.copy()}


class Oracle:
    def __init__(self, env):
        self.env = env

    def reset(self, seed):
        pass

    def act(self, observation):
        return np.clip((self.env.goal - observation["hand"]) / 0.05, -1, 1)


def reach():
    env = Environment("gymnasium", "reach_plugin:Reach", max_steps=40)
    state, action = Vector("observation.state", 2, ("x", "y"), ("hand",)), Action("action", 2, clip=(-1.0, 1.0))
    cameras = {"base_0_rgb": Camera("observation.images.top", "image")}
    return Task(
        "reach-plugin/reach", ("reach the green goal",), 10, cameras, state, action, env, Expert("reach_plugin:Oracle")
    )
