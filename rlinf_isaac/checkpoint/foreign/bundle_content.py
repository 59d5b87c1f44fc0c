"""What a bundle of a foreign checkpoint holds besides its weights, as one value. Nothing is read, and no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlinf_isaac.config.schema import JobConfig

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset


@dataclass(frozen=True, kw_only=True)
class BundleContent:
    """Everything that a bundle holds besides its weights.

    Attributes:
        config: the job that trained the checkpoint, as far as it is known; `eval` uses it.
        step: optimiser step of the checkpoint.
        asset_id: name under which OpenPI and RLinf look for the norm stats.
        norm_stats: bytes of ``norm_stats.json``, with canonical keys.
        norm_stats_record: JSON-ready record of where they come from and how their keys were changed.
        dataset: the data on which the checkpoint was trained, if that is known.
        stated: names of facts (`facts.FACTS`) whose value in `config` comes from the checkpoint's own files.
        assumed: facts for which a person gave a value, with these values.
    """

    config: JobConfig
    step: int
    asset_id: str
    norm_stats: bytes
    norm_stats_record: Mapping[str, Any]
    dataset: LeRobotDataset | None = None
    stated: Collection[str] = ()
    assumed: Mapping[str, Any] = field(default_factory=dict)
