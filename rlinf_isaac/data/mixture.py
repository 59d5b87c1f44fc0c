"""A mixture: several LeRobot datasets as one, with weights that decide how often the frames of each are drawn.

The frames of the first dataset are numbered first, then those of the second, and so on. By default frames are drawn as
if the datasets were one. With weights, an epoch still has as many draws as there are frames, but each dataset gets its
share of them. The frames of a dataset are drawn without replacement; when all have been drawn, they are drawn again in
another order. (lerobot's and OpenPI's weighted samplers draw with replacement.) Norm stats describe the draws: a frame
counts as often as it is drawn on average. lerobot joins the statistics of datasets by their numbers of frames, without
regard to the weights; OpenPI has no mixtures of LeRobot datasets.
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
"""The value of `Mixture.row_weights`, which are whole numbers, for a frame that is drawn once per epoch."""


class Mixture:
    """Datasets with equal features and rate, used like one `LeRobotDataset`. Those of a suite may differ in both: each
    is then read by itself (`located`).

    Args:
        datasets: two or more; `preflight.mixture` checks what they must have in common.
        weights: the datasets' shares of the draws, in any unit. Without weights the shares are proportional to their
            numbers of frames.

    Attributes:
        root: the roots of all datasets, for messages.
        tasks: the prompts of all datasets, renumbered.
        provenance: that of the first dataset, if all were recorded in the same environment; else None.
        counts: how many frames of each dataset an epoch draws; None without weights.
    """

    def __init__(self, datasets: Sequence[LeRobotDataset], weights: Sequence[float] = ()) -> None:
        first = datasets[0]
        self.datasets, self.weights = tuple(datasets), tuple(map(float, weights))
        self.root = Path(", ".join(str(dataset.root) for dataset in datasets))
        self.fps: int = first.fps
        self.features: dict[str, Feature] = first.features
        self.tasks = dict(enumerate(dict.fromkeys(prompt for data in datasets for prompt in data.tasks.values())))
        self.provenance: dict[str, Any] | None = first.provenance
        if any((data.provenance or {}).get("env") != (first.provenance or {}).get("env") for data in datasets):
            self.provenance = None
        self.sizes = tuple(dataset.num_frames for dataset in datasets)
        self.num_frames, self.num_episodes = sum(self.sizes), sum(dataset.num_episodes for dataset in datasets)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.episode_lengths = np.concatenate([dataset.episode_lengths for dataset in datasets])
        self.episode_starts = np.cumsum(self.episode_lengths) - self.episode_lengths
        self._columns: dict[str, np.ndarray] = {}
        self.counts = apportion(self.num_frames, self.weights) if self.weights else None

    @cached_property
    def digest(self) -> str:
        """sha256 over the digests of the datasets and their weights, in order."""
        return mixture_digest([dataset.digest for dataset in self.datasets], self.weights)

    @property
    def row_weights(self) -> np.ndarray | None:
        """The weight of each frame, (num_frames,) whole numbers in float64; None if all frames count once."""
        if self.counts is None:
            return None
        rates = np.array(self.counts) / np.array(self.sizes)
        return np.repeat(np.maximum(1.0, np.round(_UNIT * rates)), self.sizes)

    def for_one_of(self, users: int) -> Mixture:
        return Mixture([dataset.for_one_of(users) for dataset in self.datasets], self.weights)

    def column(self, name: str) -> np.ndarray:
        if name not in self._columns:
            self._columns[name] = np.concatenate([dataset.column(name) for dataset in self.datasets])
            self._columns[name].flags.writeable = False
        return self._columns[name]

    def read_columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        parts = [dataset.read_columns(names) for dataset in self.datasets]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def prompt(self, index: int) -> str:
        number = int(self._dataset_of(np.array([index]))[0])
        return self.datasets[number].prompt(index - int(self.starts[number]))

    def action_chunks(self, indices: Sequence[int] | np.ndarray, horizon: int, key: str = ACTION) -> np.ndarray:
        return self._gather(indices, lambda dataset, own: dataset.action_chunks(own, horizon, key))

    def images(self, key: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self._gather(indices, lambda dataset, own: dataset.images(key, own))

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """The indices of the frames that an epoch draws, (num_frames,) int64, not shuffled yet."""
        return drawn(self.sizes, self.counts, seed, epoch)

    def located(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which dataset each frame is of, (n,) int64, and its index there, (n,) int64."""
        numbers = self._dataset_of(indices)
        return numbers, indices - self.starts[numbers]

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
        # Each dataset is read once; argsort of the grouped order puts the results back into the order of `indices`.
        parts = [read(self.datasets[number], (indices - self.starts[number])[numbers == number]) for number in present]
        return np.concatenate(parts)[np.argsort(order, kind="stable")]


AnyDataset = LeRobotDataset | Mixture


def open_datasets(roots: Sequence[Path], weights: Sequence[float] = ()) -> AnyDataset:
    """The dataset at one root, or the mixture of the datasets at several. Raises DatasetError like `LeRobotDataset`."""
    datasets = [LeRobotDataset(root) for root in roots]
    if len(datasets) == 1:
        return datasets[0]
    return Mixture([dataset.for_one_of(len(datasets)) for dataset in datasets], weights)


def mixture_digest(digests: Sequence[str], weights: Sequence[float]) -> str:
    """The digest of a mixture of the datasets with these digests."""
    return json_digest({"datasets": list(digests), "weights": [float(weight) for weight in weights]})


def apportion(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Splits `total` into whole numbers in the proportions of `weights`, by the method of largest remainders."""
    exact = np.array(weights) / sum(weights) * total
    parts = np.floor(exact).astype(np.int64)
    left = total - int(parts.sum())
    parts[np.argsort(parts - exact, kind="stable")[:left]] += 1
    return tuple(parts.tolist())


def drawn(sizes: tuple[int, ...], counts: tuple[int, ...] | None, seed: int, epoch: int) -> np.ndarray:
    """The indices of the frames that an epoch draws from parts with `sizes` frames: `counts` of each, or all once.

    Returns (the sum of `sizes`,) int64, not shuffled yet. Frames are numbered part after part.
    """
    return np.arange(sum(sizes)) if counts is None else _drawn(sizes, counts, seed, epoch)


@lru_cache(maxsize=2)
def _drawn(sizes: tuple[int, ...], counts: tuple[int, ...], seed: int, epoch: int) -> np.ndarray:
    """Like `drawn`. The draws of a part, over all epochs, are one permutation of its frames after another."""
    pieces = []
    for number, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        # The draws of this part are numbered over all epochs; turn t consists of draws t * size .. (t + 1) * size - 1.
        draws = np.arange(epoch * count, (epoch + 1) * count)
        frames = np.empty(count, np.int64)
        for turn in np.unique(draws // size):
            in_turn = draws // size == turn
            order = np.random.default_rng([seed, 4, number, int(turn)]).permutation(size)
            frames[in_turn] = order[draws[in_turn] % size]
        pieces.append(frames + sum(sizes[:number]))
    return np.concatenate(pieces)
