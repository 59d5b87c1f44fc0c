"""Some episodes of a dataset, addressed like a dataset: the episodes to train on, and the held-out ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlinf_isaac.data.lerobot.format import ACTION
from rlinf_isaac.data.mixture import AnyDataset, Mixture, apportion, drawn

STREAM = 4
"""Random stream of the choice of episodes, so that it is independent of a training's other draws with the same seed."""


class Subset:
    """The frames of some episodes of a dataset, numbered 0 .. num_frames - 1, episode after episode.

    Args:
        dataset: the whole dataset.
        episodes: indices of the episodes, in ascending order.

    Attributes:
        frames: (num_frames,) int64, global indices of the frames in `dataset`.
        episodes: the argument `episodes`.
        num_frames: the number of frames.
        counts: for a mixture with weights, how many frames of each dataset an epoch draws; otherwise None.
    """

    def __init__(self, dataset: AnyDataset, episodes: Sequence[int]) -> None:
        self.dataset, self.episodes = dataset, tuple(episodes)
        starts, lengths = dataset.episode_starts, dataset.episode_lengths
        pieces = [np.arange(starts[episode], starts[episode] + lengths[episode]) for episode in self.episodes]
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
        """Like `Mixture.drawn`. The weights of a mixture apply to the remaining frames of its datasets."""
        return drawn(self._sizes, self.counts, seed, epoch)

    def for_one_of(self, number: int) -> Subset:
        return Subset(self.dataset.for_one_of(number), self.episodes)

    def column(self, name: str) -> np.ndarray:
        """Like `LeRobotDataset.column`, for these frames. The array is cached, because every batch needs it."""
        if name not in self._columns:
            self._columns[name] = self.dataset.column(name)[self.frames]
            self._columns[name].flags.writeable = False
        return self._columns[name]

    def located(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Like `Mixture.located`, if this is part of a mixture."""
        assert isinstance(self.dataset, Mixture)
        return self.dataset.located(self.frames[indices])

    def prompt(self, index: int) -> str:
        return self.dataset.prompt(int(self.frames[index]))

    def action_chunks(self, indices: Sequence[int] | np.ndarray, horizon: int, key: str = ACTION) -> np.ndarray:
        return self.dataset.action_chunks(self.frames[np.asarray(indices)], horizon, key)

    def images(self, key: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.dataset.images(key, self.frames[np.asarray(indices)])


def held_out_episodes(num_episodes: int, count: int, seed: int) -> list[int]:
    """The indices of the `count` episodes that are held out. The choice depends only on the arguments."""
    return sorted(np.random.default_rng([seed, STREAM]).permutation(num_episodes)[:count].tolist())


def training_part(dataset: AnyDataset, count: int, seed: int) -> AnyDataset | Subset:
    """`dataset` without the held-out episodes; `dataset` itself if `count` is 0."""
    if not count:
        return dataset
    held_out = set(held_out_episodes(dataset.num_episodes, count, seed))
    return Subset(dataset, [episode for episode in range(dataset.num_episodes) if episode not in held_out])


def held_out_part(dataset: AnyDataset, count: int, seed: int) -> Subset:
    """The episodes of `dataset` that are held out."""
    return Subset(dataset, held_out_episodes(dataset.num_episodes, count, seed))
