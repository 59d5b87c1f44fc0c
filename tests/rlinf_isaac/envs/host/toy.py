"""A point that is pushed over a plane, and what can be wrong with such an environment. It needs gymnasium and numpy."""

from __future__ import annotations

import multiprocessing
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STEP = 0.1


class Plane(gymnasium.Env):
    """The state is a point in [-1, 1]^2, drawn from the seed; an action moves it. It is solved within `radius` of 0."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, radius: float = 0.05, ends: int | None = None, cuts: int | None = None, **wrong: Any) -> None:
        self.radius, self.ends, self.cuts, self.wrong = radius, ends, cuts, wrong
        box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        image = spaces.Box(0, 255, (6, 8, 3), np.uint8)
        self.observation_space = spaces.Dict({"point": box, "pixels": spaces.Dict({"top": image, "hand": image})})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.point, self.count = self.np_random.uniform(-1, 1, 2), 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        assert action.dtype == np.float32
        assert np.abs(action).max() <= 1, "not clipped"
        self.count += 1
        if self.count == self.wrong.get("fails_at"):
            raise RuntimeError("the plane is broken")
        # Noise, so that an episode also depends on the generator that its seed has begun.
        self.point = self.point + STEP * action + self.np_random.normal(0, 1e-3, 2)
        distance = float(np.linalg.norm(self.point))
        info = {"distance": distance, "far": distance > 2, "_private": 3, "words": "no number", "array": np.zeros(2)}
        info |= {} if self.wrong.get("no_success") else {"solved": distance < self.radius}
        info["nan"] = np.nan
        if self.count % 2 == 0:
            info["even"] = self.count
        return self._observation(), -distance, self.count == self.ends, self.count == self.cuts, info

    def _image(self, shade: int) -> np.ndarray:
        image = np.full((6, 8, 3), shade, np.uint8)
        image[int(np.clip((self.point[1] + 2) * 1.5, 0, 5)), int(np.clip((self.point[0] + 2) * 2, 0, 7))] = 255
        image[0, 0] = self.count
        return image

    def _observation(self) -> dict[str, Any]:
        return {"point": self.point, "name": "plane", "pixels": {"top": self._image(10), "hand": self._image(90)}}


class Drawn(Plane):
    """The same, whose images are drawn when asked for; it counts how often."""

    drawn = 0

    def observe_images(self) -> dict[str, np.ndarray]:
        self.drawn += 1
        return {"pixels/top": self._image(10), "pixels/hand": self._image(90)}

    def _observation(self) -> dict[str, Any]:
        return {"point": self.point, "name": "plane", "drawn": np.int64(self.drawn)}


def forking(**options: Any) -> Plane:
    """The same, from a function that has forked a process and waited for it."""
    process = multiprocessing.get_context("fork").Process(target=int, daemon=True)
    process.start()
    process.join(20)
    if process.exitcode != 0:
        raise RuntimeError(f"the forked process has not ended well: {process.exitcode}")
    return Plane(**options)


def limited(**options: Any) -> gymnasium.Env:
    """The same, with gymnasium's own limit of steps around it."""
    return gymnasium.wrappers.TimeLimit(Drawn(**options), 7)


class Expert:
    """Pushes the point to 0."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.seed: int | None = None

    def reset(self, seed: int) -> None:
        self.seed = seed

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        assert self.seed is not None
        return np.clip(-observation["point"] / STEP, -1, 1)


class Insider(Expert):
    """Looks at its environment instead of what that observes."""

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        return super().act({"point": self.env.point})


class Outsider(Expert):
    """Is given the vector environment of its row."""

    def __init__(self, env: gymnasium.vector.VectorEnv) -> None:
        assert env.num_envs > 1
        super().__init__(env)


def several(num_envs: int, mode: str | None = "DISABLED", single: bool = False, **options: Any) -> Any:
    """That many of them in one vector environment."""
    vector = gymnasium.vector
    make = [partial(Plane, **options)] * num_envs
    return (
        Plane()
        if single
        else vector.SyncVectorEnv(make, **({"autoreset_mode": vector.AutoresetMode[mode]} if mode else {}))
    )


class _Drawing(gymnasium.vector.SyncVectorEnv):
    """Draws the images of all its environments when asked for, and counts how often."""

    drawn = 0

    def reset(self, **kwargs: Any) -> Any:
        observation, info = super().reset(**kwargs)
        return self._without_images(observation), info

    def step(self, actions: np.ndarray) -> Any:
        observation, *rest = super().step(actions)
        return self._without_images(observation), *rest

    def observe_images(self) -> dict[str, Any]:
        self.drawn += 1
        return {"pixels": {name: value.copy() for name, value in self._pixels.items()}}

    def _without_images(self, observation: dict[str, Any]) -> dict[str, Any]:
        self._pixels = observation["pixels"]
        return {"point": observation["point"], "drawn": np.full(self.num_envs, self.drawn)}


def drawing(num_envs: int, **options: Any) -> Any:
    """That many of them, whose images are drawn when asked for."""
    make = [partial(Plane, **options)] * num_envs
    return _Drawing(make, autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED)


def joined(num_envs: int, **options: Any) -> gymnasium.vector.VectorEnv:
    """That many of them, behind a vector environment that shows no single ones."""
    return gymnasium.vector.VectorWrapper(several(num_envs, **options))


def together() -> gymnasium.vector.VectorEnv:
    """A vector environment from a function that does not say so."""
    return several(2)
