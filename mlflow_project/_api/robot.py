"""The policy of a checkpoint, for environments and for robots."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from mlflow_project.serving.observation import ObservationSpec
from mlflow_project.serving.policy import act, observation_spec
from rlinf_isaac.api import Policy


class RobotPolicy(Policy):
    """A `Policy` that also takes the observations that a robot sends to `serve`."""

    @cached_property
    def spec(self) -> ObservationSpec:
        """What an observation must have: the names of cameras and state, the image size, the instructions."""
        return observation_spec(self.bundle, self.config)

    def infer(self, observation: Mapping[str, Any], *, seed: int = 0, call: int = 0) -> dict[str, np.ndarray]:
        """The next actions for one robot, as `serve` answers them.

        Args:
            observation: by the names of OpenPI's clients, e.g. ``observation/image`` (h, w, 3) uint8,
                ``observation/state`` (D,) in robot units, and ``prompt``, which may be left out (`spec`).
            seed: of the episode, from which the policy's noise follows.
            call: which call of the episode this is, counted from 0.

        Returns:
            ``{"actions": (T, A) float32}`` in robot units.

        Raises:
            ObservationError: with all that is wrong with the observation.
        """
        request = self.spec.parse(dict(observation), (self.config.eval.policy_seed, seed, call))
        return {"actions": act(self.policy, [request], 1)[0]}
