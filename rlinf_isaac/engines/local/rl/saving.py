"""Saves checkpoints and the training state, and announces what an interrupted training has saved.

checkpoints/<iteration>  the bundle, with the heads; adapters are merged into its weights
adapters/<iteration>     with rl.trainable=lora: the trained parameters of the policy alone (`sft.adapter_files`)
training_state           moments, float32 copies and, with adapters, what trains: all that the next iteration needs
kept_state               the same of the checkpoint that a roll-back would choose
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.steps import CHECKPOINTS
from rlinf_isaac.checkpoint.write_bundle import write_bundle
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl.memory import as_fine_tuning
from rlinf_isaac.engines.local.rl.optimisers import Optimisers
from rlinf_isaac.engines.local.rl.states import States
from rlinf_isaac.engines.local.sft.adapter_files import FILES, write_adapters
from rlinf_isaac.engines.local.sft.saving import ADAPTERS
from rlinf_isaac.engines.resume import saved_checkpoint
from rlinf_isaac.ground.events import CheckpointSaved, Event, FileSaved
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.lora import merged, scales


def save(
    job: RlJob, states: States, policy: FlowActorCritic, optimisers: Optimisers, iteration: int, needed: int
) -> Iterator[Event]:
    """Write the bundle and the training state of an iteration; `needed` as of `States.save`."""
    whole = policy.checkpoint_module()
    weights, adapters, kept = whole.state_dict(), scales(policy.model), optimisers.tensors()
    if adapters:
        trained = {name: each for name, each in policy.model.named_parameters() if each.requires_grad}
        write_adapters(job.output / ADAPTERS / str(iteration), trained, as_fine_tuning(job.config))
        weights = merged(weights, adapters)
        kept |= optimisers.trained()
    path = job.output / CHECKPOINTS / str(iteration)
    description: dict[str, Any] = job.description
    bundle = write_bundle(
        path,
        state_dict=weights,
        config=description,
        norm_stats=job.start.norm_stats_bytes,
        asset_id=job.start.asset_id,
        step=iteration,
        lineage=job.lineage,
        overwrite=True,  # a run killed before it saved the training state has left the same bytes
    )
    states.save(iteration, kept, needed)
    yield CheckpointSaved(iteration, path, bundle.digest)
    yield from _adapters(job.output, iteration)


def saved(output: Path, iteration: int) -> Iterator[Event]:
    """Tell of what lies there of an iteration; every byte of the checkpoint is hashed."""
    yield from saved_checkpoint(output, iteration)
    yield from _adapters(output, iteration)


def _adapters(output: Path, iteration: int) -> Iterator[FileSaved]:
    for name in FILES:
        if (file := output / ADAPTERS / str(iteration) / name).is_file():
            yield FileSaved(file, f"{ADAPTERS}/{iteration}/{name}")
