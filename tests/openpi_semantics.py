"""What OpenPI does with norm stats, restated from ``openpi/shared/normalize.py`` and ``openpi/transforms.py`` so that
tests need no OpenPI. The marker ``parity`` compares the first half with the real class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from rlinf_isaac.data.delta_actions import parse_delta_mask, to_delta
from rlinf_isaac.data.lerobot.format import STATE
from rlinf_isaac.data.lerobot.reader import LeRobotDataset

BINS = 5000
Stats = Mapping[str, np.ndarray]


class RunningStats:
    """OpenPI's estimator: running moments in the dtype of the data, and quantiles read as left edges off a histogram.

    Beside OpenPI's values it keeps what its error bound needs.

    Attributes:
        growths: (dim,) how often the range of each dim grew, each time moving counts to the bin of their left edge.
    """

    def __init__(self) -> None:
        self.count = 0

    def update(self, batch: np.ndarray) -> None:
        batch = batch.reshape(-1, batch.shape[-1])
        low, high = batch.min(0), batch.max(0)
        if not self.count:
            self.mean, self.mean_of_squares = batch.mean(0), (batch**2).mean(0)
            self.low, self.high, self.growths = low, high, np.zeros(len(low), int)
            # Entry by entry, as OpenPI does: numpy 1, which OpenPI is held to, makes float64 of a single float32.
            self.edges = [self._edges(a - 1e-10, b + 1e-10) for a, b in zip(low, high, strict=True)]
            self.histograms = [np.zeros(BINS) for _ in low]
        elif (low < self.low).any() or (high > self.high).any():
            self.growths += (low < self.low) | (high > self.high)
            self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
            for entry, old in enumerate(self.edges):
                self.edges[entry] = self._edges(self.low[entry], self.high[entry])
                weights = self.histograms[entry]
                self.histograms[entry] = np.histogram(old[:-1], self.edges[entry], weights=weights)[0]
        self.count += len(batch)
        share = len(batch) / self.count
        self.mean += (batch.mean(0) - self.mean) * share
        self.mean_of_squares += ((batch**2).mean(0) - self.mean_of_squares) * share
        for entry, edges in enumerate(self.edges):
            self.histograms[entry] += np.histogram(batch[:, entry], edges)[0]

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(np.maximum(0, self.mean_of_squares - self.mean**2))

    def quantile(self, q: float) -> np.ndarray:
        reached = [np.searchsorted(np.cumsum(counts), q * self.count) for counts in self.histograms]
        return np.array([edges[bin] for edges, bin in zip(self.edges, reached, strict=True)])

    @property
    def bin_width(self) -> np.ndarray:
        return (self.high.astype(np.float64) - self.low) / BINS

    @property
    def lost(self) -> np.ndarray:
        """(dim,) share of the rows that fell out of the histogram when it was re-binned."""
        return 1 - np.array([counts.sum() for counts in self.histograms]) / self.count

    @staticmethod
    def _edges(low: np.floating, high: np.floating) -> np.ndarray:
        return np.linspace(low, high, BINS + 1)


def batches(
    dataset: LeRobotDataset, horizon: int, batch_size: int, delta_actions: str = "none"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(states, action chunks) as OpenPI's ``compute_norm_stats.py`` sees them: in order, whole batches only."""
    mask = parse_delta_mask(delta_actions)
    for start in range(0, dataset.num_frames - batch_size + 1, batch_size):
        indices = np.arange(start, start + batch_size)
        states = dataset.column(STATE)[indices]
        yield states, to_delta(dataset.action_chunks(indices, horizon), states, mask)


def running_stats(
    dataset: LeRobotDataset,
    horizon: int,
    batch_size: int,
    delta_actions: str = "none",
    estimator: Callable[[], Any] = RunningStats,
) -> dict[str, Any]:
    """OpenPI's loop."""
    stats = {"state": estimator(), "actions": estimator()}
    for states, actions in batches(dataset, horizon, batch_size, delta_actions):
        stats["state"].update(states)
        stats["actions"].update(actions)
    return stats


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts -> one dict whose keys are joined by "/" (``flax.traverse_util``)."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and "mean" not in value
        flat |= flatten(value, f"{prefix}{key}/") if nested else {f"{prefix}{key}": value}
    return flat


def normalize(data: Mapping[str, np.ndarray], stats: Mapping[str, Any], quantiles: bool) -> dict[str, np.ndarray]:
    """``Normalize``, strict=False: statistics whose key is not in the data are skipped, silently."""
    result = dict(data)
    for key, values in flatten(stats).items():
        if key in result:
            x = result[key]
            if quantiles:
                result[key] = (x - values["q01"]) / (values["q99"] - values["q01"] + 1e-6) * 2.0 - 1.0
            else:
                result[key] = (x - values["mean"]) / (values["std"] + 1e-6)
    return result


def unnormalize(data: Mapping[str, np.ndarray], stats: Mapping[str, Any], quantiles: bool) -> dict[str, np.ndarray]:
    """``Unnormalize``, strict=True: statistics whose key is not in the data are an error."""
    result = dict(data)
    for key, values in flatten(stats).items():
        if key not in result:
            raise ValueError(f"Selector key {key} not found in tree")
        x = result[key]
        if quantiles:
            result[key] = (x + 1.0) / 2.0 * (values["q99"] - values["q01"] + 1e-6) + values["q01"]
        else:
            result[key] = x * (values["std"] + 1e-6) + values["mean"]
    return result
