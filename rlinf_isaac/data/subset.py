"""Some episodes of a dataset, addressed as a dataset of their own: those to train on, and those that are held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlinf_isaac.data.lerobot.format import ACTION
from rlinf_isaac.data.mixture import AnyDataset, Mixture, apportion, drawn

STREAM = 4
"""Keeps the choice of episodes apart from a training's other random choices under the same seed."""


class Subset:
    """The frames of some episodes of a dataset, numbered 0 .. num_frames - 1, episode after episode.

    Args:
        dataset: the whole.
        episodes: indices of the episodes, in ascending order.

    Attributes:
        frames: (num_frames,) int64, their global indices in `dataset`.
        episodes: as given.
        num_frames: how many they are.
        counts: how many frames of each dataset of a mixture with weights an epoch draws; None elsewhere.
    """

    def __init__(self, dataset: AnyDataset, episodes: Sequence[int]) -> None:
        self.dataset, self.episodes = dataset, tuple(episodes)
        starts, lengths = dataset.episode_starts, dataset.episode_lengths
        pieces = [np.arange(starts[each], starts[each] + lengths[each]) for each in self.episodes]
        self.frames = np.concatenate(pieces) if pieces else np.empty(0, np.int64)
        self.num_frames = len(self.frames)
        self._columns: dict[str, np.ndarray] = {}
        self._sizes: tuple[int, ...] = (self.num_frames,)
        self.counts: tuple[int, ...] | None = None
        if isinstance(dataset, Mixture) and dataset.weights:
            ends = np.searchsorted(self.frames, [*dataset.starts[1:], dataset.num_frames])
            self._sizes = tuple(np.diff(ends, prepend=0).tolist())
            self.counts = apportion(self.num_frames, dataset.weights)

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """As `Mixture.drawn`: the weights of a mixture are those of what is left of its parts."""
        return drawn(self._sizes, self.counts, seed, epoch)

    def for_one_of(self, number: int) -> Subset:
        return Subset(self.dataset.for_one_of(number), self.episodes)

    def column(self, name: str) -> np.ndarray:
        """As `LeRobotDataset.column`, of these frames; kept, for every batch asks."""
        if name not in self._columns:
            self._columns[name] = self.dataset.column(name)[self.frames]
            self._columns[name].flags.writeable = False
        return self._columns[name]

    def prompt(self, index: int) -> str:
        return self.dataset.prompt(int(self.frames[index]))

    def action_chunks(self, indices: Sequence[int] | np.ndarray, horizon: int, key: str = ACTION) -> np.ndarray:
        return self.dataset.action_chunks(self.frames[np.asarray(indices)], horizon, key)

    def images(self, key: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.dataset.images(key, self.frames[np.asarray(indices)])


def held_out_episodes(num_episodes: int, count: int, seed: int) -> list[int]:
    """Which episodes of a dataset are held out: `count` of them, a function of `seed`."""
    return sorted(np.random.default_rng([seed, STREAM]).permutation(num_episodes)[:count].tolist())


def training_part(dataset: AnyDataset, count: int, seed: int) -> AnyDataset | Subset:
    """`dataset` without the episodes that are held out; itself where none is."""
    if not count:
        return dataset
    apart = set(held_out_episodes(dataset.num_episodes, count, seed))
    return Subset(dataset, [each for each in range(dataset.num_episodes) if each not in apart])


def held_out_part(dataset: AnyDataset, count: int, seed: int) -> Subset:
    """The episodes of `dataset` that are held out."""
    return Subset(dataset, held_out_episodes(dataset.num_episodes, count, seed))
