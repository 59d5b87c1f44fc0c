"""The environments of a worker, one for each of its rows, and what the orders do with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from rlinf_isaac.envs.host.protocol import Leaf, SharedArrays
from rlinf_isaac.envs.host.worker.make import bases, find_function, make_environment, provider, versions
from rlinf_isaac.envs.host.worker.row import Row, numeric_array
from rlinf_isaac.tasks.task import RLINF
from rlinf_isaac.tasks.terms import holds

Step = tuple[Any, float, bool, bool, Mapping[str, Any]]
"""What gymnasium's ``step`` gives."""
OF_KIND = {"lerobot": ("lerobot",), RLINF: (RLINF, "torch")}
"""Kind of environment -> distributions on which its environments depend besides their own."""


class Rows:
    """What `server.main` carries out orders on.

    Attributes:
        ORDERS: the names of methods that a parent may ask for.
        rows: index -> row, of those that are built.
        space: of an action of one row.
    """

    ORDERS: tuple[str, ...] = ("build", "reset", "step", "images", "keys", "expert", "act")

    def __init__(self, settings: dict[str, Any]) -> None:
        """Builds the first environment.

        Args:
            settings: ``rows``, the indices of this worker; ``kind``, ``make``, ``options``, ``directory``, ``sources``,
                ``success``, ``failure``, ``dwell`` of `tasks.task.Environment`, and ``expert``, which may be None.
        """
        self.settings, self.indices = settings, settings["rows"]
        self.rows: dict[int, Row] = {}
        self.space = self._build_first()
        self.shared: SharedArrays | None = None
        self.rendered: list[str] = []

    def report(self) -> dict[str, Any]:
        """What the parent has to know of the environment: ``leaves`` as `protocol.Leaf`, ``provider`` (name and
        version), ``versions``, ``rates`` as `declared_rates`, and ``action``: shape, lowest and highest values (None
        where it has no bounds)."""
        row = self.rows[self.indices[0]]
        found: dict[str, Leaf] = {}
        for entries, rendered in ((row.leaves(), False), (row.first_images, True)):
            for path, value in entries.items():
                array = numeric_array(value)
                if array is not None:
                    found[path] = Leaf(array.shape, array.dtype.str, rendered)
        made, space = self._made(), self.space
        name, version = provider(self.settings["make"], made, self.settings["sources"])
        kind, make = self.settings["kind"], self.settings["make"]
        others = [each for each in bases(made) if each != name]
        if kind == RLINF and ":" not in make:
            others.append(make)  # RLinf's names of environments are mostly those of the packages behind them
        bounds = [getattr(space, name, None) for name in ("low", "high")]
        return {
            "leaves": found,
            "provider": (name, version),
            "versions": versions("gymnasium", "numpy", "mujoco", *OF_KIND.get(kind, ()), *others),
            "rates": declared_rates(made),
            "action": {
                "space": str(space),
                "shape": None if bounds[0] is None else list(space.shape),
                "bounds": [None if each is None else np.ravel(each).astype(float).tolist() for each in bounds],
            },
        }

    def build(self, num_envs: int, action_dims: int, leaves: Mapping[str, Sequence[Any]]) -> None:
        """Map the shared memory, and build the other environments."""
        spec = {path: Leaf(tuple(shape), dtype, rendered) for path, (shape, dtype, rendered) in leaves.items()}
        self.shared = SharedArrays(self.settings["memory"], num_envs, action_dims, spec)
        self.rendered = [path for path, leaf in spec.items() if leaf.rendered]
        for index in self.indices:
            if index not in self.rows:
                self.rows[index] = self._build()

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> dict[str, Any] | None:
        """Start the episodes of these rows."""
        for index, observation in zip(rows, self._first_observations(rows, seeds), strict=True):
            self.rows[index].begin(observation)
            self._write(index)
        return None

    def step(self, images: bool = True) -> dict[str, Any]:
        """Let the active rows take their next steps, each until its limit or the end of its episode.

        Args:
            images: whether somebody may ask for the images of their last observations.

        Returns:
            ``rows``, and ``numbers``: the finite numbers that `info` had in their episodes.
        """
        assert self.shared is not None
        active, numbers = self._active(), []
        for index in active:
            self.shared.rewards[index], self.shared.steps[index] = 0, 0
        self._play(active)
        for index in active:
            self._write(index)
            found = self.rows[index].numbers.items()
            numbers.append({key: value for key, value in found if math.isfinite(value)})
        return {"rows": active, "numbers": numbers}

    def _step(self, index: int, t: int, result: Step) -> bool:
        """Note what step `t` of a row has given; returns whether the episode has ended."""
        assert self.shared is not None
        row, shared, settings = self.rows[index], self.shared, self.settings
        row.observation, reward, terminated, truncated, info = result
        row.note(info)
        state = float(reward), bool(terminated), bool(truncated), info
        success = holds(settings["success"], *state)
        row.judged |= success is not None
        row.streak = row.streak + 1 if success else 0
        solved = row.streak >= settings["dwell"]
        failed = bool(settings["failure"] and holds(settings["failure"], *state))
        shared.rewards[index, t], shared.steps[index] = reward, t + 1
        shared.success[index], shared.failure[index], shared.judged[index] = solved, failed, row.judged
        shared.terminated[index], shared.truncated[index] = terminated, truncated
        return solved or failed or bool(terminated) or bool(truncated)

    def images(self, rows: Sequence[int]) -> None:
        """Draw the images of these rows."""
        assert self.shared is not None
        for index in rows:
            drawn = self.rows[index].images() or {}
            for path in self.rendered:
                _copy(path, drawn, self.shared.observation[path], index)

    def keys(self, rows: Sequence[int]) -> dict[str, Any]:
        """``keys``: what `info` had in the episodes of these rows, in their order."""
        return {"keys": [sorted(self.rows[index].keys) for index in rows]}

    def expert(self, rows: Sequence[int], seeds: Sequence[int]) -> None:
        """Give these rows an expert for the episodes that run."""
        settings = self.settings
        function = find_function(settings["expert"], settings["directory"], settings["sources"])
        assert function is not None, f"{settings['expert']} is no function"
        for index, seed in zip(rows, seeds, strict=True):
            row = self.rows[index]
            row.expert = function(self._env_of(index))
            row.expert.reset(seed)

    def _env_of(self, index: int) -> Any:
        """What the expert of a row is given."""
        return self.rows[index].env

    def act(self) -> None:
        """Let the experts of the active rows choose their actions."""
        assert self.shared is not None
        for index in self._active():
            row = self.rows[index]
            self.shared.actions[index, 0] = np.ravel(row.expert.act(row.observation))

    def close(self) -> None:
        """Close the environments."""
        for row in self.rows.values():
            row.env.close()

    def _build_first(self) -> Any:
        """Build the first row; returns the space of its actions."""
        row = self.rows[self.indices[0]] = self._build()
        return row.env.action_space

    def _build(self) -> Row:
        env = make_environment(*(self.settings[key] for key in ("kind", "make", "options", "directory", "sources")))
        if hasattr(env, "single_action_space"):
            raise TypeError("it is a VectorEnv; the function that makes one has a parameter num_envs")
        # An environment may build its scene at its first reset, and its renderer at its first image. Every row has the
        # same past, whoever is its worker.
        row = Row(env, env.reset(seed=0)[0])
        row.first_images = row.images() or {}
        return row

    def _made(self) -> Any:
        """What was made first."""
        return self.rows[self.indices[0]].env

    def _first_observations(self, rows: Sequence[int], seeds: Sequence[int]) -> list[Any]:
        """Reset these rows."""
        return [self.rows[index].env.reset(seed=seed)[0] for index, seed in zip(rows, seeds, strict=True)]

    def _play(self, active: Sequence[int]) -> None:
        """Let these rows take their steps."""
        assert self.shared is not None
        for index in active:
            for t in range(int(self.shared.limits[index])):
                if self._step(index, t, self.rows[index].env.step(self._action(index, t))):
                    break

    def _action(self, index: int, t: int) -> Any:
        assert self.shared is not None
        return self.shared.actions[index, t].astype(self.space.dtype).reshape(self.space.shape)

    def _active(self) -> list[int]:
        assert self.shared is not None
        return [index for index in self.indices if self.shared.active[index]]

    def _write(self, index: int) -> None:
        """Put the last observation of a row into the shared memory."""
        assert self.shared is not None
        entries = self.rows[index].leaves()
        for path, array in self.shared.observation.items():
            if path not in self.rendered:
                _copy(path, entries, array, index)


def declared_rates(env: Any) -> dict[str, float]:
    """Control steps per second, by each of the names under which environments say how long a step is."""
    inner = getattr(env, "unwrapped", env)
    said: dict[str, float] = {}
    with suppress(Exception):
        said["metadata['render_fps']"] = float(env.metadata["render_fps"])
    for name, per_second in (("dt", False), ("step_dt", False), ("control_freq", True)):
        with suppress(Exception):  # a property, of a simulator that is not started yet
            value = float(getattr(inner, name))
            said[name] = value if per_second else 1 / value
    return {name: rate for name, rate in said.items() if rate > 0}


def _copy(path: str, entries: Mapping[str, Any], array: np.ndarray, index: int) -> None:
    """Copy an entry into its row; it must have the shape and the kind of number of the first observation."""
    if path not in entries:
        raise KeyError(f"the observation has no {path!r} any more; it has {', '.join(sorted(entries))}")
    value = np.asarray(entries[path])
    if value.shape != array.shape[1:]:
        raise ValueError(f"{path!r} of the observation was {array.shape[1:]} and is {value.shape} now")
    np.copyto(array[index : index + 1], value[None], casting="same_kind")
