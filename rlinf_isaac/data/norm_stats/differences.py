"""Compares statistics with those of a dataset's rows, within the error of OpenPI's estimator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rlinf_isaac.data.delta_actions import parse_delta_mask, to_delta
from rlinf_isaac.data.lerobot.format import ACTION, STATE
from rlinf_isaac.data.mixture import AnyDataset
from rlinf_isaac.data.norm_stats.compute import Settings
from rlinf_isaac.data.norm_stats.stats import KEYS, FeatureStats, NormStats
from rlinf_isaac.tasks.adapters import find_adapter

SAMPLED_ROWS = 100_000


def sample_rows(dataset: AnyDataset, settings: Settings | None = None) -> dict[str, np.ndarray]:
    """Rows of ``state`` and ``actions`` as in training, from frames spread evenly over the dataset.

    Both are adapted as the settings say. Actions are those of whole chunks, relative to the state.
    """
    horizon = settings["action_horizon"] if settings else 1
    mask = parse_delta_mask(settings["delta_actions"]) if settings else ()
    count = min(dataset.num_frames, max(1, SAMPLED_ROWS // horizon))
    frames = np.linspace(0, dataset.num_frames - 1, count).astype(np.int64)
    state, action = settings.get("features", (STATE, ACTION)) if settings else (STATE, ACTION)
    states, chunks = dataset.column(state)[frames], dataset.action_chunks(frames, horizon, action)
    if (adapter := find_adapter(settings.get("adapt") if settings else None)) is not None:
        states, chunks = adapter.state(states), adapter.actions(chunks)
    actions = to_delta(chunks, states, mask)
    return {"state": states, "actions": actions.reshape(-1, actions.shape[-1])}


def differing_keys(stats: NormStats, exact: NormStats, rows: Mapping[str, np.ndarray]) -> list[str]:
    """The keys of `stats` that differ from the `exact` statistics by more than the error of OpenPI's estimator.

    `rows` (from `sample_rows`) give the magnitude of the values.
    """
    return [key for key in KEYS if not _close(getattr(stats, key), getattr(exact, key), rows[key])]


def _close(stats: FeatureStats, exact: FeatureStats, rows: np.ndarray) -> bool:
    """Whether `stats` are within the error of OpenPI's estimator: float32 moments, quantiles off by up to 30 bins."""
    moments = 1e-4 * np.abs(rows).max(0) + 1e-3 * exact.std + 1e-6
    bins = 30 * (rows.max(0) - rows.min(0)) / 5000 + 1e-6
    limits = {"mean": moments, "std": moments, "q01": bins, "q99": bins}
    pairs = {name: (getattr(stats, name), getattr(exact, name)) for name in limits}
    return all(ours is None or (np.abs(ours - right) <= limits[name]).all() for name, (ours, right) in pairs.items())
