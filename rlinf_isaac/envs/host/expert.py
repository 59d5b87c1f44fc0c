"""The expert of a hosted environment, as jobs call it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlinf_isaac.envs.vector import Observation


class HostExpert:
    """The experts of all rows, which run in the workers."""

    def __init__(self, version: str, choose: Callable[[np.ndarray], np.ndarray]) -> None:
        self.version, self._choose = version, choose

    def act(self, observation: Observation, active: np.ndarray) -> np.ndarray:
        """See `ExpertPolicy.act`. The experts read their environment's own last observation."""
        return self._choose(np.asarray(active, bool))
