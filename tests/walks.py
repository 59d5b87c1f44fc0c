"""Two small robots that walk to 0, as two tasks of one policy: the environment, and the files that describe them.

The environment needs gymnasium and numpy, and runs in an interpreter of its own.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STEP, SIDE = 0.1, 16


class Walk(gymnasium.Env):
    """A point of `dims` numbers, drawn from the seed; an action moves it. It is solved near 0."""

    def __init__(self, dims: int = 2, hand: bool = True) -> None:
        self.dims, self.hand = dims, hand
        self.action_space = spaces.Box(-1, 1, (dims,), np.float32)
        image = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        views = {"top": image} | ({"hand": image} if hand else {})
        point = spaces.Box(-np.inf, np.inf, (dims,), np.float64)
        self.observation_space = spaces.Dict({"point": point, "pixels": spaces.Dict(views)})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.point = self.np_random.uniform(-1, 1, self.dims)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.point = self.point + STEP * action
        distance = float(np.abs(self.point).max())
        return self._observation(), -distance, False, False, {"distance": distance, "solved": distance < 0.2}

    def _observation(self) -> dict[str, Any]:
        shades = {"top": 20 * self.dims} | ({"hand": 90} if self.hand else {})
        views = {name: np.full((SIDE, SIDE, 3), shade, np.uint8) for name, shade in shades.items()}
        for image in views.values():
            image[int(np.clip((self.point[0] + 2) * SIDE / 4, 0, SIDE - 1))] = 255
        return {"point": self.point, "pixels": views}


class Expert:
    """Walks to 0."""

    def __init__(self, env: Walk) -> None:
        pass

    def reset(self, seed: int) -> None:
        pass

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        return np.clip(-observation["point"] / STEP, -1, 1)


TASK = """
name: {name}
prompt: {prompt}
control_hz: {hz}
cameras:
  base_0_rgb: {{dataset: observation.images.top, env: pixels/top}}
  {hand}
state: {{dims: {dims}, env: [point]}}
action: {{dims: {dims}, clip: [-1, 1], delta: "{delta}"}}
env: {{kind: gymnasium, make: "walks.py:Walk", options: {{dims: {dims}, hand: {has_hand}}}, success: info.solved,
      max_steps: 16, python: {python}}}
expert: walks.py:Expert
robot: {robot}
"""
HAND = "left_wrist_0_rgb: {dataset: observation.images.hand, env: pixels/hand}"


def write_task(
    directory: Path, name: str, dims: int, *, hand: bool, prompt: str, hz: int = 10, robot: str = "walker", **more: str
) -> Path:
    """The YAML file of a task of such a robot, beside a copy of the environment."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(__file__, directory / "walks.py")
    words: dict[str, Any] = {"hand": HAND if hand else "", "has_hand": str(hand).lower(), "python": sys.executable}
    words |= {"delta": "none"} | more
    path = directory / f"{name.replace('/', '-')}.yaml"
    path.write_text(TASK.format(name=name, dims=dims, prompt=prompt, hz=hz, robot=robot, **words))
    return path


def two_tasks(directory: Path) -> tuple[Path, Path]:
    """A robot with two dims and two cameras, and one with three dims and one camera at another rate."""
    flat = write_task(directory, "walk/flat", 2, hand=True, prompt="walk to the middle")
    deep = write_task(directory, "walk/deep", 3, hand=False, prompt="go home", hz=20, robot="diver", delta="2,-1")
    return flat, deep
