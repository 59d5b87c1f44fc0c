"""What is odd about the statistics of one dim, by themselves and beside rows of the dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlinf_isaac.data.norm_stats.normaliser import Normalizer, NormMode
from rlinf_isaac.data.norm_stats.stats import FeatureStats
from rlinf_isaac.ground.errors import Problem

NEAR_CONSTANT = 1e-4
"""With a normalising scale below this, in robot units, sensor noise becomes the largest signal."""
MAX_MEAN, MIN_STD, MAX_STD = 0.5, 0.3, 3.0
"""Limits on mean and std of rows that are standardised with the statistics of their own dataset."""
MIN_INSIDE, MIN_QUANTILE_STD = 0.9, 0.05
"""Lower limits on the share of rows between q01 and q99 (expected: 0.98), and on their std after q01..q99 is scaled to
-1..1 (expected: 0.2 or more)."""


def near_constant(path: Path, dim: str, scale: float, mode: NormMode, reach: float | None) -> Problem:
    """The problem of a dim of such a scale; `reach` is the largest normalised value in the dataset, if it is known."""
    spread = "std" if mode == "zscore" else "q99 - q01"
    cause = f"{path}: {dim} is near-constant ({spread} is tiny): a value that is 0.001 off becomes {1e-3 / scale:.0f}"
    if reach is not None:
        cause += f"; rows of the dataset reach {reach:.3g}"
    cure = f"widen its {spread} by hand, or make sure that the robot never leaves that value"
    return Problem("norm-stats-near-constant", cause, cure, level="warning")


def strangeness(
    stats: FeatureStats, entry: int, x: np.ndarray, normalised: np.ndarray, mode: NormMode, scale: float
) -> str:
    """Why the statistics of a dim cannot be those of the rows `x`; empty if they can."""
    deviation = float(stats.std[entry]) + 1e-6
    mean, std = (x.mean() - stats.mean[entry]) / deviation, x.std() / deviation
    if abs(mean) > MAX_MEAN:
        return f"mean off by {mean:.2g} std"
    both_constant = stats.std[entry] < NEAR_CONSTANT and x.std() < NEAR_CONSTANT
    if not both_constant and not MIN_STD <= std <= MAX_STD:
        return f"std {std:.2g} times the file's"
    if mode == "quantile":
        tolerance = 1e-3  # of the range: rows at q01 and q99 themselves count as inside
        inside = float((np.abs(normalised) <= 1 + tolerance).mean()) if scale >= NEAR_CONSTANT else 1.0
        if inside < MIN_INSIDE:
            return f"{inside:.0%} of the rows within q01..q99"
        if not both_constant and normalised.std() < MIN_QUANTILE_STD:
            return f"q01..q99 far wider than the rows, whose std becomes {normalised.std():.2g}"
    return ""


def round_trips(normaliser: Normalizer, rows: np.ndarray) -> bool:
    """Whether unnormalize(normalize(x)) = x up to the float32 rounding of the normalised value and of the result."""
    normalised = normaliser.normalize(rows)
    largest = np.abs(normalised).max(0) * normaliser.scale + np.abs(rows).max(0)
    error = np.abs(normaliser.unnormalize(normalised) - rows.astype(np.float64)).max(0)
    return bool((error <= 4 * np.finfo(np.float32).eps * largest).all())
