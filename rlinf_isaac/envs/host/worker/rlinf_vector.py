"""The rows of a worker in an environment of RLinf (``rlinf.envs``): one object that steps all of them together.

RLinf makes it with a config, resets all rows at once, and steps them by ``chunk_step``. None of its environments takes
a seed for each episode: starts come from the generator that the config's seed begins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from rlinf_isaac.envs.host.worker.make import find_function
from rlinf_isaac.envs.host.worker.vector import VectorRows

VIEWS = "extra_view_images"
"""Entry of RLinf's observations with several images: (N, views, height, width, 3)."""
INSTRUCTIONS = "task_descriptions"
"""Entry of RLinf's observations with the instruction of each row."""
_SEED_BYTES = 4


class RlinfRows(VectorRows):
    """Rows of an environment of RLinf. Their episodes begin together; what follows the end of one goes unseen."""

    def report(self) -> dict[str, Any]:
        return super().report() | {"instructed": self._vector.instructions is not None}

    def reset(self, rows: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
        """Start the episodes of these rows. Returns ``prompts``: the instructions of the rows, in their order."""
        super().reset(rows, seeds)
        said = self._vector.instructions
        return {"prompts": [None if said is None else str(said[place]) for place in self._places(rows)]}

    def _make_vector(self, count: int) -> Any:
        return RlinfVector(self.settings, count)

    def _made(self) -> Any:
        return self._vector.env

    def _env_of(self, index: int) -> Any:
        raise TypeError("an expert plays from seeds, and an environment of RLinf takes none for an episode")

    def _begin_unseen(self) -> None:
        """RLinf goes on stepping rows whose episodes are over."""


class RlinfVector:
    """An environment of RLinf in the form of gymnasium's ``VectorEnv``, with numpy's arrays in place of torch's.

    Attributes:
        env: RLinf's object.
        instructions: of all rows; None where it gives none.
    """

    def __init__(self, settings: Mapping[str, Any], count: int) -> None:
        """
        Args:
            settings: of the worker (`rows.Rows`). ``make`` is RLinf's name of a type of environments (``libero``), or
                a class, as ``package.module:Class`` or ``file.py:Class``.
            count: number of rows.

        Raises:
            ValueError: RLinf has no such type.
        """
        from gymnasium.spaces import Box
        from omegaconf import OmegaConf

        make, self.num_envs, self.metadata = settings["make"], count, {"autoreset_mode": "DISABLED"}
        config = OmegaConf.create(config_of(settings, count))
        function = find_function(make, settings["directory"], settings["sources"])
        if function is None:
            function = import_module("rlinf.envs").get_env_cls(make, config)
        self.env = function(
            cfg=config, num_envs=count, seed_offset=0, total_num_processes=1, worker_info=None
        )  # as RLinf's env worker calls it
        self.single_action_space = Box(-np.inf, np.inf, (settings["action_dims"],), np.float32)
        self.instructions: Sequence[Any] | None = None

    def reset(self, *, seed: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the episodes of all rows; seeds are of no effect.

        Raises:
            RuntimeError: the ``reset_mask`` leaves a row out.
        """
        if not np.all(options["reset_mask"]):
            raise RuntimeError("episodes of an environment of RLinf begin in all rows together")
        observation, info = self.env.reset()
        self.instructions = observation.get(INSTRUCTIONS)
        return as_arrays(observation, self.num_envs), info

    def step(self, actions: np.ndarray) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One control step of all rows: a chunk of one action (N, A)."""
        import torch

        result = self.env.chunk_step(torch.from_numpy(actions[:, None]))
        observations, rewards, terminated, truncated, infos = result
        return (
            as_arrays(_last(observations), self.num_envs),
            self._of_last_step(rewards),
            self._of_last_step(terminated),
            self._of_last_step(truncated),
            as_info(_last(infos) or {}, self.num_envs),
        )

    def _of_last_step(self, values: Any) -> np.ndarray:
        """(N,) the values of the last step of a chunk, which RLinf gives as (N, steps)."""
        array = _array(values)
        assert array is not None
        return array.reshape(self.num_envs, -1)[:, -1]

    def close(self) -> None:
        """Close the environment, if it can be closed."""
        for each in (self.env, getattr(self.env, "env", None)):
            if close := getattr(each, "close", None):
                close()
                return


def config_of(settings: Mapping[str, Any], count: int) -> dict[str, Any]:
    """RLinf's config of an environment (its ``env.eval``): that of the task, and what RLinf's own files have besides.

    Without a seed in the task the seed is new in every process, so that an evaluation that is resumed does not meet the
    starts of its first part again. Episodes end where they end: RLinf neither starts new ones nor passes over ends.
    """
    usual = {
        "seed": int.from_bytes(os.urandom(_SEED_BYTES)) >> 1,
        "env_type": settings["make"],
        "group_size": 1,
        "is_eval": True,
        "use_fixed_reset_state_ids": False,
        "use_ordered_reset_state_ids": False,
        "use_rel_reward": False,
        "reward_coef": 1.0,
        "max_episode_steps": settings["max_steps"],
        "max_steps_per_rollout_epoch": settings["max_steps"],
        "video_cfg": {"save_video": False, "info_on_video": False},
    }
    ours = {"total_num_envs": count, "auto_reset": False, "ignore_terminations": False}
    return usual | dict(settings["options"]) | ours


def as_arrays(observation: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The entries of an observation that have a number for each of the `count` rows. The images of `VIEWS` have their
    places as names: ``extra_view_images/0``."""
    found: dict[str, Any] = {}
    for name, value in observation.items():
        if isinstance(value, Mapping):
            found[name] = as_arrays(value, count)
            continue
        array = _array(value)
        if array is None or array.ndim == 0 or len(array) != count:
            continue
        found[name] = {str(k): array[:, k] for k in range(array.shape[1])} if name == VIEWS else array
    return found


def as_info(infos: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The entries of an info that have a number for each row. What RLinf sums up of an episode, in a dict
    ``episode``, is there as ``episode/success_once``; only what is true or false, as the rest is recorded anyway."""
    found: dict[str, Any] = {}
    for name, value in infos.items():
        if isinstance(value, Mapping):
            inner = as_info(value, count)
            found |= {f"{name}/{key}": each for key, each in inner.items() if each.dtype == bool}
            continue
        array = _array(value)
        if array is not None and array.shape == (count,):
            found[name] = array
    return found


def _last(values: Any) -> Any:
    """The entry of the last step of a chunk; some environments give that alone."""
    return values[-1] if isinstance(values, list | tuple) else values


def _array(value: Any) -> np.ndarray | None:
    """A tensor, or a list of numbers, as an array; None for what is no number."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError:  # entries of different shapes
        return None
    return array if array.dtype.kind in "biuf" else None
