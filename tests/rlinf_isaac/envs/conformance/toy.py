"""A point that flies to 0, seen by a camera above it and one that it carries; and what can be wrong with such an
environment. It needs gymnasium and numpy."""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STEP, RADIUS, HZ = 0.1, 0.25, 10
HEIGHT, WIDTH = 24, 32
GLOBAL = {"wind": 0.0}
COLOURS = np.random.default_rng(0).integers(0, 60, (60, 60, 3)).repeat(4, axis=0).repeat(4, axis=1)
"""What lies on the ground, seen from the point."""


class Flight(gymnasium.Env):
    """The state is a point (3,), drawn from the seed; an action moves it. It is solved within `RADIUS` of 0."""

    def __init__(self, fault: str = "", fps: int = HZ, reach: float = 1.0, limit: int = 0) -> None:
        self.fault, self.limit = fault, limit
        self.metadata = {"render_fps": fps}
        if fault == "dt":
            self.dt = 1 / 25
        self.action_space = spaces.Box(-reach, reach, (3,), np.float32)
        self.observation_space = spaces.Dict({})
        self.start = np.zeros(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        generator = np.random.default_rng() if self.fault == "unseeded" else self.np_random
        if self.fault == "one start":
            generator = np.random.default_rng(0)
        self.point = self.start = generator.uniform(-1, 1, 3)
        self.wind = GLOBAL["wind"] = float(generator.uniform(0, 0.02))
        self.count = 0
        if self.fault == "seeds physics of all rows":
            np.random.seed(seed)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.count += 1
        if self.fault == "raises" and self.count == 4:
            raise RuntimeError("the motor is broken")
        action = np.array(action, np.float64)
        if self.fault == "clock":
            action += 1e-9 * (time.perf_counter_ns() % 1000)
        if self.fault == "process":
            action += 1e-6 * (os.getpid() % 1000)
        if self.fault == "global generator":
            action += 1e-3 * np.random.normal(size=3)
        if self.fault == "ignores":
            action[2] = 0
        if self.fault == "ignores all":
            action[:] = 0
        self.point = self.point + STEP * action
        self.point[0] += GLOBAL["wind"] if self.fault == "global" else self.wind
        distance = float(np.linalg.norm(self.point))
        solved = distance < RADIUS
        info: dict[str, Any] = {"solved": solved, "distance": distance}
        if self.fault == "never solved":
            info["solved"] = False
        if self.fault == "always solved":
            info["solved"] = True
        if self.fault == "no term":
            del info["solved"]
        reward = float(solved)
        truncated = bool(self.limit) and self.count >= self.limit
        if self.fault == "starts anew" and (solved or truncated):
            return self.reset()[0], reward, False, truncated, info
        return self._observation(), reward, False, truncated, info

    def _above(self) -> np.ndarray:
        """A ground that gets brighter downwards (red) and to the right (green), with the point in white."""
        image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        image[..., 0] = np.linspace(20, 200, HEIGHT)[:, None]
        image[..., 1] = np.linspace(0, 120, WIDTH)
        row, column = (self.point[1] + 2) / 4 * HEIGHT, (self.point[0] + 2) / 4 * WIDTH
        row, column = int(np.clip(row, 0, HEIGHT - 3)), int(np.clip(column, 0, WIDTH - 3))
        image[row : row + 3, column : column + 3] = 255
        return image

    def _carried(self, point: np.ndarray) -> np.ndarray:
        """The ground below a point, under a part of the robot that is always in the picture."""
        row, column = (int(np.clip(100 + 50 * each, 0, 200)) for each in point[:2])
        image = COLOURS[row : row + HEIGHT, column : column + WIDTH] + np.array([120, 60, 0])
        image[-6:] = (20, 90, 200)
        return image.astype(np.uint8)

    def _observation(self) -> dict[str, Any]:
        above, carried = self._above(), self._carried(self.point)
        point: np.ndarray = self.point.copy()
        if self.fault == "stale wrist":
            carried = self._carried(self.start)
        if self.fault == "wrist on the wall":
            carried = self._above()
        if self.fault == "bgr":
            above = above[..., ::-1]
        if self.fault == "upside down":
            above = above[::-1]
        if self.fault == "black":
            above = np.zeros_like(above)
        if self.fault == "negative":
            above = 255 - above
        if self.fault == "large":
            above = above.repeat(2, axis=0).repeat(2, axis=1)
        if self.fault == "floats":
            above = above.astype(np.float32) / 255
        if self.fault == "nan" and self.count > 2:
            point[1] = np.nan
        if self.fault == "shape" and self.count > 2:
            point = np.zeros(4)
        if self.fault == "degrees":
            point = np.rad2deg(point) + 90
        return {"point": point, "pixels": {"above": above, "carried": carried}}


class Expert:
    """Flies to 0."""

    def __init__(self, env: Flight) -> None:
        self.env = env

    def reset(self, seed: int) -> None:
        """Nothing to do."""

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        return np.clip(-self.env.point / STEP, -1, 1)
