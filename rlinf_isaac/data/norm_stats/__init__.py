"""Normalisation statistics in OpenPI's schema: computing, reading and checking them."""

from __future__ import annotations

from rlinf_isaac.data.norm_stats.compute import Settings, compute_norm_stats, settings_of
from rlinf_isaac.data.norm_stats.parse import from_json, load
from rlinf_isaac.data.norm_stats.stats import KEYS, FeatureStats, NormStats, digest

__all__ = [
    "KEYS",
    "FeatureStats",
    "NormStats",
    "Settings",
    "compute_norm_stats",
    "digest",
    "from_json",
    "load",
    "settings_of",
]
