"""The rows of a worker in one vector environment of gymnasium, which steps them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlinf_isaac.envs.host.worker.make import find_function
from rlinf_isaac.envs.host.worker.row import Row
from rlinf_isaac.envs.host.worker.rows import Rows, Step
from rlinf_isaac.tasks.paths import leaves


class Autoreset(Exception):
    """A vector environment starts new episodes by itself, so that the end of one cannot be told from the next."""


class VectorRows(Rows):
    """Rows of a `VectorEnv` without autoreset.

    It cannot step some of its rows and leave the others: a row that has no episode to play is stepped all the same,
    with an action near zero, in an episode of which nobody sees anything. Therefore an episode that was left out of a
    step cannot go on, which is an error. Jobs never do that.

    Attributes:
        pictures: paths of the images that `images` draws.
    """

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> dict[str, Any] | None:
        super().reset(rows, seeds)
        places = self._places(rows)
        self._left_out[places], self._undrawn[places] = False, True
        return None

    def build(self, num_envs: int, action_dims: int, leaves: Mapping[str, Sequence[Any]]) -> None:
        super().build(num_envs, action_dims, leaves)
        self.pictures = self.rendered

    def step(self, images: bool = True) -> dict[str, Any]:
        self._keep_images = images and bool(self.pictures)
        return super().step()

    def images(self, rows: Sequence[int]) -> None:
        """Draw the images of those of these rows whose last observation has none yet."""
        assert self.shared is not None
        places = [place for place in self._places(rows) if self._undrawn[place]]
        if not places:
            return
        drawn = leaves(self._vector.observe_images())
        for path in self.pictures:
            self.shared.observation[path][[self.indices[place] for place in places]] = drawn[path][places]
        self._undrawn[places] = False

    def _env_of(self, index: int) -> Any:
        """The environment of a row where the vector environment is made of single ones, or else all of it."""
        single = getattr(self._vector, "envs", None)
        return self._vector if single is None else single[self.indices.index(index)]

    def close(self) -> None:
        self._vector.close()

    def _build_first(self) -> Any:
        count = len(self.indices)
        self._vector = vector = self._make_vector(count)
        if getattr(vector, "num_envs", None) != count or not hasattr(vector, "single_action_space"):
            raise TypeError(f"it is no VectorEnv of {count} environments, but {vector}")
        mode = vector.metadata.get("autoreset_mode")
        if str(getattr(mode, "name", mode)).upper() != "DISABLED":
            raise Autoreset(f"{vector} starts new episodes by itself (autoreset_mode is {mode})")
        self._over, self._left_out, self._undrawn = np.zeros((3, count), bool)
        observations = self._reset(np.ones(count, bool), [0] * count)
        self.rows = {index: Row(vector, _of_row(observations, i)) for i, index in enumerate(self.indices)}
        if draw := getattr(vector, "observe_images", None):
            self.rows[self.indices[0]].first_images = _of_row(leaves(draw()), 0)
        return vector.single_action_space

    def _make_vector(self, count: int) -> Any:
        settings = self.settings
        make = find_function(settings["make"], settings["directory"], settings["sources"])
        assert make is not None
        return make(num_envs=count, **settings["options"])

    def _made(self) -> Any:
        """One of its environments where it has them, or else it itself."""
        return getattr(self._vector, "envs", [self._vector])[0]

    def _first_observations(self, rows: Sequence[int], seeds: Sequence[int]) -> list[Any]:
        places, all_seeds = self._places(rows), [0] * len(self.indices)
        for place, seed in zip(places, seeds, strict=True):
            all_seeds[place] = seed
        mask = np.zeros(len(self.indices), bool)
        mask[places] = True
        observations = self._reset(mask, all_seeds)
        return [_of_row(observations, place) for place in places]

    def _play(self, active: Sequence[int]) -> None:
        assert self.shared is not None
        limits, running = self.shared.limits, list(active)
        for t in range(int(limits[active].max(initial=0))):
            running = [index for index in running if t < limits[index]]
            if not running:
                break
            results = self._step_together(running, t)
            running = [
                index for index, result in zip(running, results, strict=True) if not self._step(index, t, result)
            ]

    def _step_together(self, running: Sequence[int], t: int) -> list[Step]:
        """Step `t` of these rows, and one of the others of which nothing is noted."""
        places = self._places(running)
        if self._left_out[places].any():
            raise RuntimeError(
                "rows of a VectorEnv are stepped together; an episode was left out of a step and goes on"
            )
        self._left_out[:] = True
        self._left_out[places] = False
        if self._keep_images:  # a row that goes on unseen keeps the image of its last observation
            self.images([index for place, index in enumerate(self.indices) if self._left_out[place]])
        self._begin_unseen()
        idle = np.clip(np.zeros(self.space.shape), self.space.low, self.space.high).astype(self.space.dtype)
        actions = np.stack([idle] * len(self.indices))
        for place, index in zip(places, running, strict=True):
            actions[place] = self._action(index, t)
        observations, rewards, terminated, truncated, infos = self._vector.step(actions)
        self._undrawn[places] = True
        self._over = np.asarray(terminated, bool) | np.asarray(truncated, bool)
        return self._split(observations, rewards, terminated, truncated, infos, places)

    def _split(
        self, observations: Any, rewards: Any, terminated: Any, truncated: Any, infos: Any, places: Sequence[int]
    ) -> list[Step]:
        """What a step gave to the rows at these places, each by itself."""
        return [
            (_of_row(observations, i), rewards[i], terminated[i], truncated[i], _info_of_row(infos, i)) for i in places
        ]

    def _begin_unseen(self) -> None:
        """Start episodes of which nobody sees anything, in the rows whose own are over."""
        if self._over.any():
            self._reset(self._over.copy(), [0] * len(self.indices))

    def _reset(self, mask: np.ndarray, seeds: list[int]) -> Any:
        """Reset the rows of the mask (N,); returns the observations of all."""
        self._over[mask] = False
        return self._vector.reset(seed=seeds, options={"reset_mask": mask})[0]

    def _places(self, rows: Sequence[int]) -> list[int]:
        return [self.indices.index(row) for row in rows]


def _of_row(values: Any, i: int) -> Any:
    """The entries of a row in an array, or in a dict of them, as new arrays."""
    if isinstance(values, Mapping):
        return {name: _of_row(value, i) for name, value in values.items()}
    return np.array(values[i])


def _info_of_row(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """The info of a row. A vector environment has an array for each entry, and under ``_entry`` which rows have it."""
    return {
        name: _info_of_row(value, i) if isinstance(value, Mapping) else value[i]
        for name, value in infos.items()
        if not name.startswith("_") and infos.get(f"_{name}", np.ones(i + 1, bool))[i]
    }
