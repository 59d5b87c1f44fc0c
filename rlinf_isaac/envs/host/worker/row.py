"""A row: an environment and its episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlinf_isaac.tasks.paths import WHOLE, leaves

NUMERIC = "biuf"
"""Kinds of numpy dtypes that an observation may have; entries of others are left out."""


class Row:
    """An environment and its episode.

    Attributes:
        env: the environment.
        observation: what it gave last, as it gave it.
        numbers: key of `info` -> its last value in this episode, for those that are numbers.
        keys: all keys that `info` had in this episode.
        judged: whether `info` ever had what the success term reads.
        streak: for how many steps in a row the success term has held.
        first_images: what `images` gave first.
    """

    def __init__(self, env: Any, observation: Any) -> None:
        """
        Args:
            env: the environment, or the vector environment of which this is a row.
            observation: of its first reset.
        """
        self.env, self.observation = env, observation
        self.numbers: dict[str, float] = {}
        self.keys: set[str] = set()
        self.judged = False
        self.streak = 0
        self.expert: Any = None
        self.first_images: dict[str, Any] = {}

    def begin(self, observation: Any) -> None:
        """Begin an episode, of which this is the first observation."""
        self.numbers, self.keys, self.judged, self.streak = {}, set(), False, 0
        self.observation = observation

    def note(self, info: Mapping[str, Any]) -> None:
        """Keep the numbers of an info."""
        for key, value in info.items():
            if isinstance(key, str) and not key.startswith("_"):
                self.keys.add(key)
                if type(value) in (float, bool):  # the usual case, and much faster
                    self.numbers[key] = float(value)
                    continue
                number = numeric_array(value)
                if number is not None and number.ndim == 0:
                    self.numbers[key] = float(number)

    def images(self) -> dict[str, Any] | None:
        """The images of an environment that draws them when asked; None for one that gives them with every step."""
        each = self.env
        while each is not None:  # gymnasium's wrappers, from version 1 on, do not pass on what they do not know
            if draw := getattr(each, "observe_images", None):
                return leaves(draw())
            each = getattr(each, "env", None)
        return None

    def leaves(self) -> dict[str, Any]:
        """Path -> value of the last observation."""
        return leaves(self.observation if isinstance(self.observation, Mapping) else {WHOLE: self.observation})


def numeric_array(value: Any) -> np.ndarray | None:
    """The array of a numeric entry, or None."""
    try:
        array = np.asarray(value)
    except ValueError:  # a tuple of arrays of different shapes
        return None
    return array if array.dtype.kind in NUMERIC else None
