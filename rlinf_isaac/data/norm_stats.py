"""Normalisation statistics in OpenPI's schema, computed from two parquet columns without decoding an image.

What OpenPI's ``compute_norm_stats.py`` does, and what is done here:

* ``state``: every frame once. ``actions``: every frame starts a chunk of `action_horizon` actions, the last action
  repeated past the end of its episode, and all of them are counted. Instead of building the chunks, each action is
  weighted by the number of chunk slots it fills (`chunk_weights`), which gives the same sums exactly.
* mean and std (population): OpenPI keeps running float32 means; here float64, two passes. They agree to float32 error.
* q01, q99: OpenPI reads them off a histogram of 5000 bins that is re-binned as the range grows: bin edges, which
  depend on the order of batches and drift by up to a bin with each re-binning. Here they are exact: the smallest value
  with at least 1 % (99 %) of the weight at or below it. On normal data the two differ by at most 3 bin widths.
* OpenPI drops the last, partial batch (``len(dataset) // batch_size``). Here all frames count; to reproduce OpenPI,
  pass ``num_frames = len(dataset) // batch_size * batch_size``.

Actions are taken as recorded. Statistics of delta actions (OpenPI's ``DeltaActions``) are not computed here.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.atomic import write_file
from rlinf_isaac.data.lerobot_format import ACTION, STATE
from rlinf_isaac.data.lerobot_reader import LeRobotDataset
from rlinf_isaac.digest import bytes_digest
from rlinf_isaac.errors import NormStatsError

KEYS = ("state", "actions")  # the only keys that OpenPI's transforms look at
QUANTILES = (0.01, 0.99)
DIGITS = 9  # kept of each entry's largest magnitude: finer than float32, coarser than the order of summation shows
_BINS = 4096


@dataclass(frozen=True, eq=False)
class FeatureStats:
    """Statistics of one feature, each a float64 vector (dim,). The quantiles may be absent; pi0.5 needs them."""

    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray | None = None
    q99: np.ndarray | None = None

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return len(self.mean)


@dataclass(frozen=True, eq=False)
class NormStats:
    """Statistics of ``state`` and ``actions``."""

    state: FeatureStats
    actions: FeatureStats

    def to_json(self) -> str:
        """``norm_stats.json`` as OpenPI reads it. Equal statistics give equal bytes."""
        stats = {key: _feature_to_dict(getattr(self, key)) for key in KEYS}
        return json.dumps({"norm_stats": stats}, indent=2, allow_nan=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of the bytes that `save` writes."""
        return digest(self.to_json().encode())

    def save(self, path: str | Path) -> None:
        """Write `to_json` atomically; parent directories are created."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_file(path, self.to_json())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NormStats) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.digest)


def digest(data: bytes) -> str:
    """sha256 of a ``norm_stats.json``, the identity by which checkpoints and evaluations name their statistics."""
    return bytes_digest(data)


def compute_norm_stats(
    dataset: LeRobotDataset,
    action_horizon: int,
    *,
    state_key: str = STATE,
    action_key: str = ACTION,
    num_frames: int | None = None,
) -> NormStats:
    """Statistics of a dataset; see the module docstring for the definitions.

    Args:
        dataset: only its numeric columns are read.
        action_horizon: length of an action chunk, as the policy is configured.
        state_key: feature that becomes ``state``.
        action_key: feature that becomes ``actions``.
        num_frames: use only the chunks (and states) that start at the first `num_frames` frames; all when None.

    Raises:
        NormStatsError: the horizon or `num_frames` is out of range, or a value is NaN or infinite.
    """
    frames = dataset.num_frames if num_frames is None else num_frames
    if action_horizon < 1:
        raise NormStatsError(f"action_horizon must be at least 1, not {action_horizon}")
    if not 1 <= frames <= dataset.num_frames:
        raise NormStatsError(
            f"num_frames {num_frames} is not within 1..{dataset.num_frames}, the frames of {dataset.root}"
        )
    columns = dataset.read_columns([state_key, action_key])
    once = (np.arange(dataset.num_frames) < frames).astype(np.float64)
    weights = chunk_weights(dataset.episode_lengths, action_horizon, frames)
    return NormStats(
        state=_weighted_stats(columns[state_key], once, state_key),
        actions=_weighted_stats(columns[action_key], weights, action_key),
    )


def chunk_weights(episode_lengths: np.ndarray, horizon: int, num_frames: int | None = None) -> np.ndarray:
    """How many chunk slots each frame fills when every frame (of the first `num_frames`) starts a chunk.

    Frame t of an episode of L frames, of which the first m start chunks, is in the chunks that start in
    [max(0, t - horizon + 1), min(t, m - 1)]; the last frame also fills, for each start s < m, the s + horizon - L slots
    past the end.

    Returns:
        (frames,) float64; sums to num_frames * horizon.
    """
    lengths = np.asarray(episode_lengths, np.int64)
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    starting = np.clip((total if num_frames is None else num_frames) - starts, 0, lengths)  # m of each episode
    t = np.arange(total) - np.repeat(starts, lengths)
    m = np.repeat(starting, lengths)
    weights = np.maximum(np.minimum(t, m - 1) - np.maximum(t - horizon + 1, 0) + 1, 0)
    first = np.maximum(lengths - horizon, 0)  # the first start whose chunk reaches past the end
    count = np.maximum(starting - first, 0)
    weights[starts + lengths - 1] += count * (first + starting - 1 + 2 * (horizon - lengths)) // 2  # arithmetic series
    return weights.astype(np.float64)


def load(path: str | Path) -> NormStats:
    """Read a ``norm_stats.json``. Raises NormStatsError naming the file, the keys at fault, and the cure."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NormStatsError(
            f"{path} cannot be read ({error.strerror}); compute it with the norm_stats verb"
        ) from error
    return from_json(data, source=str(path))


def from_json(data: bytes | str, source: str = "norm stats") -> NormStats:
    """Parse the bytes of a ``norm_stats.json``; `source` names them in errors. Raises NormStatsError."""
    try:
        content = json.loads(data)
    except ValueError as error:
        raise NormStatsError(f"{source} is not JSON ({error}); the file is damaged") from error
    if not isinstance(content, dict) or not isinstance(content.get("norm_stats"), dict):
        raise NormStatsError(
            f"{source} has no 'norm_stats' object: it is not in OpenPI's format (LeRobot's stats.json is another). "
            "Compute it with the norm_stats verb"
        )
    stats = content["norm_stats"]
    if surplus := sorted(stats.keys() - set(KEYS)):
        raise NormStatsError(
            f"{source} has the keys {', '.join(surplus)}, which OpenPI's transforms never look up: state and actions "
            "would silently not be normalised. The keys must be 'state' and 'actions' and nothing else; compute the "
            "file anew with the norm_stats verb"
        )
    if missing := [key for key in KEYS if key not in stats]:
        raise NormStatsError(f"{source} lacks the key {', '.join(missing)}; compute it anew with the norm_stats verb")
    return NormStats(**{key: _feature_from_dict(stats[key], f"{source}: {key}") for key in KEYS})


def _weighted_stats(values: np.ndarray, weights: np.ndarray, name: str) -> FeatureStats:
    """Weighted mean, population std and quantiles of each column of `values` (frames, dim)."""
    if not np.isfinite(values).all():
        frame, entry = np.argwhere(~np.isfinite(values))[0]
        raise NormStatsError(
            f"{name}: frame {frame}, entry {entry} is {values[frame, entry]}; repair the dataset first"
        )
    total = weights.sum()
    columns = []
    for entry in range(values.shape[1]):  # one column at a time: contiguous, and little memory
        x = values[:, entry].astype(np.float64)
        mean = (weights * x).sum() / total
        std = np.sqrt((weights * np.square(x - mean)).sum() / total)
        q01, q99 = weighted_quantiles(x, weights, QUANTILES)
        columns.append(_rounded([mean, std, q01, q99], scale=np.abs(x).max()))
    return FeatureStats(*np.array(columns).T)


def weighted_quantiles(x: np.ndarray, weights: np.ndarray, quantiles: tuple[float, ...]) -> list[float]:
    """For each q, the smallest x with at least q of the (integer-valued) weight at or below it (inverted CDF).

    Sorting everything is slow, so values are first counted in equal bins, and only the bin that holds q is sorted.
    """
    low, high = x.min(), x.max()
    if low == high:
        return [float(low)] * len(quantiles)
    bins = np.minimum((x - low) / (high - low) * _BINS, _BINS - 1).astype(np.int32)
    below = np.concatenate([[0.0], np.cumsum(np.bincount(bins, weights, minlength=_BINS))])
    found = []
    for q in quantiles:
        target = q * below[-1]
        chosen = int(np.searchsorted(below[1:], target))
        inside = bins == chosen
        order = np.argsort(x[inside], kind="stable")
        cumulative = below[chosen] + np.cumsum(weights[inside][order])
        found.append(float(x[inside][order][np.searchsorted(cumulative, target)]))
    return found


def _rounded(values: list[float], scale: float) -> list[float]:
    """To `DIGITS` digits of `scale`; so the std of a constant entry is 0, not 1e-17, and files are reproducible."""
    decimals = DIGITS - math.ceil(math.log10(scale)) if scale > 0 else 0
    return [round(float(value), decimals) for value in values]


def _feature_to_dict(stats: FeatureStats) -> dict[str, list[float] | None]:
    return {
        name: None if (values := getattr(stats, name)) is None else values.tolist()
        for name in ("mean", "std", "q01", "q99")
    }


def _feature_from_dict(values: Any, source: str) -> FeatureStats:
    if not isinstance(values, dict) or not {"mean", "std"} <= values.keys():
        raise NormStatsError(f"{source} must be an object with mean, std, q01, q99")
    arrays: dict[str, np.ndarray | None] = {}
    for name in ("mean", "std", "q01", "q99"):
        try:
            array = None if values.get(name) is None else np.asarray(values[name], np.float64)
        except (TypeError, ValueError) as error:
            raise NormStatsError(f"{source}.{name} is not a list of numbers") from error
        if array is not None and (array.ndim != 1 or not array.size or not np.isfinite(array).all()):
            raise NormStatsError(f"{source}.{name} is not a non-empty list of finite numbers")
        arrays[name] = array
    if len({len(array) for array in arrays.values() if array is not None}) != 1:
        lengths = {name: None if array is None else len(array) for name, array in arrays.items()}
        raise NormStatsError(f"{source}: mean, std, q01 and q99 differ in length: {lengths}")
    mean, std, q01, q99 = (arrays[name] for name in ("mean", "std", "q01", "q99"))
    if mean is None or std is None:
        raise NormStatsError(f"{source}: mean and std must not be null")
    if (std < 0).any() or (q01 is not None and q99 is not None and (q99 < q01).any()):
        raise NormStatsError(f"{source} has a negative std or q99 < q01; compute it anew with the norm_stats verb")
    return FeatureStats(mean=mean, std=std, q01=q01, q99=q99)
