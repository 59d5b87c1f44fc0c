"""Finds RLinf's ``global_step_N`` directories and makes bundles of them. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.convert.read import read_stored
from rlinf_isaac.checkpoint.convert.source import Source
from rlinf_isaac.checkpoint.convert.tensors import StoredTensor
from rlinf_isaac.checkpoint.coverage import plan_model, strip_wrappers
from rlinf_isaac.checkpoint.find_weights import Weights
from rlinf_isaac.checkpoint.write_bundle import write_bundle
from rlinf_isaac.config.schema import ModelConfig
from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES

WEIGHTS = Path("actor/model_state_dict/full_weights.pt")
TRAINING_STATE = Path("actor/dcp_checkpoint/.metadata")


def find_checkpoints(results: Path) -> dict[int, Path]:
    """Step -> ``global_step_N`` of all checkpoints below `results` that RLinf has saved completely."""
    found = {}
    for metadata in results.glob(f"*/checkpoints/global_step_*/{TRAINING_STATE}"):
        directory = metadata.parents[2]
        step = directory.name.removeprefix("global_step_")
        if step.isdecimal() and (directory / WEIGHTS).exists():
            found[int(step)] = directory
    return found


def make_bundle_of(
    checkpoint: Path,
    path: Path,
    *,
    model: ModelConfig,
    config: Mapping[str, Any],
    norm_stats: bytes,
    asset_id: str,
    step: int,
    lineage: Mapping[str, str | None],
) -> Bundle:
    """Seal the weights of a ``global_step_N`` with the norm stats they were trained with.

    Args:
        checkpoint: RLinf's directory.
        path: directory of the bundle; an existing one is replaced.
        model: architecture that the weights must fill completely.
        config, norm_stats, asset_id, step, lineage: as of `write_bundle`.

    Raises:
        WeightsError: names or shapes are not those of the architecture, or the file is damaged.
    """
    stored = read_stored(Weights("torch", (checkpoint / WEIGHTS,)))
    tensors = {".".join(keys): each for keys, each in stored.tensors.items() if isinstance(each, StoredTensor)}
    infos = {name: each.info for name, each in tensors.items()}
    plan = plan_model(infos, model, str(checkpoint / WEIGHTS), optional=OPTIONAL_PREFIXES)
    extra = {
        name: origin
        for name, origin in strip_wrappers(tensors, plan.sources)[0].items()
        if name.startswith(OPTIONAL_PREFIXES)
    }
    with Source(stored, list(tensors.values())) as source:
        return write_bundle(
            path,
            state_dict={name: source.tensor(tensors[origin]) for name, origin in {**plan.sources, **extra}.items()},
            config=dict(config),
            norm_stats=norm_stats,
            asset_id=asset_id,
            step=step,
            lineage=dict(lineage),
            overwrite=True,
        )
