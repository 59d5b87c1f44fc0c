"""Several LeRobot datasets as one: the frames of the first, then those of the second, and so on; and how often each is
drawn.

By default frames are drawn as if the datasets were one. With weights, an epoch still has as many draws as there are
frames, but each dataset has its share of them; its frames take turns, so that in any time none of it is drawn twice as
often as another. (lerobot's and OpenPI's weighted samplers draw with replacement.) Norm stats are those of the draws: a
frame counts as often as it is drawn, on average. lerobot, which joins the statistics of datasets, goes by their frames
whatever is drawn of them; OpenPI has no mixtures of LeRobot datasets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.data.lerobot.format import ACTION, Feature
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.ground.digest import json_digest

_UNIT = 1 << 16
"""`Mixture.row_weights` are whole numbers, of which this one stands for once per epoch."""


class Mixture:
    """Datasets of equal features and rate, used like one `LeRobotDataset`; frames are numbered through.

    Args:
        datasets: two or more; `preflight.mixture` says what must agree.
        weights: shares of the frames that are drawn, in any unit; none: in proportion to the datasets' frames.

    Attributes:
        root: the roots of all, for messages.
        tasks: the prompts of all, numbered anew.
        provenance: that of the first, if all were recorded in the same environment; else None.
        counts: how many frames of each dataset an epoch draws; None without weights.
    """

    def __init__(self, datasets: Sequence[LeRobotDataset], weights: Sequence[float] = ()) -> None:
        first = datasets[0]
        self.datasets, self.weights = tuple(datasets), tuple(map(float, weights))
        self.root = Path(", ".join(str(each.root) for each in datasets))
        self.fps: int = first.fps
        self.features: dict[str, Feature] = first.features
        self.tasks = dict(enumerate(dict.fromkeys(prompt for each in datasets for prompt in each.tasks.values())))
        self.provenance: dict[str, Any] | None = first.provenance
        if any((each.provenance or {}).get("env") != (first.provenance or {}).get("env") for each in datasets):
            self.provenance = None
        self.sizes = tuple(each.num_frames for each in datasets)
        self.num_frames, self.num_episodes = sum(self.sizes), sum(each.num_episodes for each in datasets)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.episode_lengths = np.concatenate([each.episode_lengths for each in datasets])
        self.episode_starts = np.cumsum(self.episode_lengths) - self.episode_lengths
        self._columns: dict[str, np.ndarray] = {}
        self.counts = apportion(self.num_frames, self.weights) if self.weights else None

    @cached_property
    def digest(self) -> str:
        """sha256 over the digests of the datasets and their weights, in order."""
        return mixture_digest([each.digest for each in self.datasets], self.weights)

    @property
    def row_weights(self) -> np.ndarray | None:
        """How often each frame counts, (num_frames,) whole float64; None where all count once."""
        if self.counts is None:
            return None
        rates = np.array(self.counts) / np.array(self.sizes)
        return np.repeat(np.maximum(1.0, np.round(_UNIT * rates)), self.sizes)

    def for_one_of(self, users: int) -> Mixture:
        return Mixture([each.for_one_of(users) for each in self.datasets], self.weights)

    def column(self, name: str) -> np.ndarray:
        if name not in self._columns:
            self._columns[name] = np.concatenate([each.column(name) for each in self.datasets])
            self._columns[name].flags.writeable = False
        return self._columns[name]

    def read_columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        parts = [each.read_columns(names) for each in self.datasets]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def prompt(self, index: int) -> str:
        number = int(self._dataset_of(np.array([index]))[0])
        return self.datasets[number].prompt(index - int(self.starts[number]))

    def action_chunks(self, indices: Sequence[int] | np.ndarray, horizon: int, key: str = ACTION) -> np.ndarray:
        return self._gather(indices, lambda dataset, own: dataset.action_chunks(own, horizon, key))

    def images(self, key: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self._gather(indices, lambda dataset, own: dataset.images(key, own))

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """Which frames an epoch draws, by number, (num_frames,) int64, not shuffled yet."""
        return drawn(self.sizes, self.counts, seed, epoch)

    def _dataset_of(self, indices: np.ndarray) -> np.ndarray:
        if indices.size and (indices.min() < 0 or indices.max() >= self.num_frames):
            raise IndexError(f"frame index {indices.min()} or {indices.max()} is outside 0..{self.num_frames - 1}")
        return np.searchsorted(self.starts, indices, side="right") - 1

    def _gather(
        self, indices: Sequence[int] | np.ndarray, read: Callable[[LeRobotDataset, np.ndarray], np.ndarray]
    ) -> np.ndarray:
        indices = np.asarray(indices, np.int64).reshape(-1)
        numbers = self._dataset_of(indices)
        order = np.argsort(numbers, kind="stable")
        present = np.unique(numbers)
        parts = [read(self.datasets[each], (indices - self.starts[each])[numbers == each]) for each in present]
        return np.concatenate(parts)[np.argsort(order, kind="stable")]


AnyDataset = LeRobotDataset | Mixture


def open_datasets(roots: Sequence[Path], weights: Sequence[float] = ()) -> AnyDataset:
    """The dataset at a root, or the mixture of those at several. Raises DatasetError as `LeRobotDataset`."""
    datasets = [LeRobotDataset(root) for root in roots]
    if len(datasets) == 1:
        return datasets[0]
    return Mixture([each.for_one_of(len(datasets)) for each in datasets], weights)


def mixture_digest(digests: Sequence[str], weights: Sequence[float]) -> str:
    """The digest of a mixture of the datasets with these digests."""
    return json_digest({"datasets": list(digests), "weights": [float(weight) for weight in weights]})


def apportion(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """`total` in whole parts nearest to the proportions of `weights`: largest remainders first."""
    exact = np.array(weights) / sum(weights) * total
    parts = np.floor(exact).astype(np.int64)
    left = total - int(parts.sum())
    parts[np.argsort(parts - exact, kind="stable")[:left]] += 1
    return tuple(parts.tolist())


def drawn(sizes: tuple[int, ...], counts: tuple[int, ...] | None, seed: int, epoch: int) -> np.ndarray:
    """Which frames an epoch draws of parts with `sizes` frames, numbered through: `counts` of each, or every one once.

    (the sum of `sizes`,) int64, not shuffled yet.
    """
    return np.arange(sum(sizes)) if counts is None else _drawn(sizes, counts, seed, epoch)


@lru_cache(maxsize=2)
def _drawn(sizes: tuple[int, ...], counts: tuple[int, ...], seed: int, epoch: int) -> np.ndarray:
    """Of each dataset, consecutive pieces of one permutation of its frames after the other."""
    pieces = []
    for number, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        draws = np.arange(epoch * count, (epoch + 1) * count)
        frames = np.empty(count, np.int64)
        for turn in np.unique(draws // size):
            chosen = draws // size == turn
            order = np.random.default_rng([seed, 4, number, int(turn)]).permutation(size)
            frames[chosen] = order[draws[chosen] % size]
        pieces.append(frames + sum(sizes[:number]))
    return np.concatenate(pieces)
