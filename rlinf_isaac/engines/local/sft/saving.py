"""Saves checkpoints and the training state, and announces what an interrupted training has saved.

checkpoints/<step>      the bundle: the weights or, with an EMA, their average; adapters are merged into them
checkpoints-raw/<step>  with sft.evaluate_raw and an EMA: a bundle of the weights themselves
adapters/<step>         with sft.trainable=lora: the trained parameters alone (`adapter_files`)
training_state          optimiser state, float32 copies and averages that the next step needs, several times the size of
                        the weights; after the last step only a note that the training is complete
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.checkpoint.steps import CHECKPOINTS
from rlinf_isaac.checkpoint.write_bundle import write_bundle
from rlinf_isaac.config.keep import parse_keep
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local.sft.adapter_files import FILES, write_adapters
from rlinf_isaac.engines.local.sft.ema import Average
from rlinf_isaac.engines.local.sft.watching import plot_of
from rlinf_isaac.engines.local.training.retention import Retention, scores_of
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.local.training.training_state import (
    TrainingState,
    optimiser_tensors,
    trained_tensors,
)
from rlinf_isaac.engines.resume import metrics_log
from rlinf_isaac.ground.events import CheckpointRemoved, CheckpointSaved, FileSaved
from rlinf_isaac.pi0.lora import merged, scales
from rlinf_isaac.pi0.model import Pi0

BUNDLES, RAW, ADAPTERS = CHECKPOINTS, "checkpoints-raw", "adapters"


def save(
    job: SftJob,
    description: dict[str, Any],
    state: TrainingState,
    model: Pi0,
    optimiser: torch.optim.AdamW,
    average: Average,
    step: int,
    team: Team,
) -> Iterator[CheckpointSaved | FileSaved]:
    """Write the bundle and the training state of a step. Collective call: every process of `team` must call it; the
    first one writes."""
    parameters, lora = dict(model.named_parameters(remove_duplicate=False)), scales(model)
    weights = team.collect({id(parameter): parameter.detach() for parameter in parameters.values()})
    averages = team.collect(average.values)
    kept = {}
    if step < job.config.sft.steps:
        rest = trained_tensors(model, optimiser, average.values) if average.values or lora else {}
        kept = team.collect(optimiser_tensors(model, optimiser) | rest)
    if not team.first:
        return
    raw = {name: weights[id(parameter)] for name, parameter in parameters.items()}
    averaged = {id(parameters[name]): value.to(parameters[name].dtype).cpu() for name, value in averages.items()}
    chosen = {name: averaged.get(id(parameter), raw[name]) for name, parameter in parameters.items()}
    if lora:
        trained = {name: chosen[name] for name, parameter in parameters.items() if parameter.requires_grad}
        write_adapters(job.output / ADAPTERS / str(step), trained, job.config)
    _write(job, description, BUNDLES, step, merged(chosen, lora))
    if averages and job.config.sft.evaluate_raw:
        _write(job, description, RAW, step, merged(raw, lora))
    state.save(step, kept)
    yield from saved(job.output, step, verify=False)


def begin_removal(job: SftJob, start: int | None) -> Iterator[CheckpointRemoved]:
    """Complete and tell what an interrupted training has removed; `start` as returned by `resume`."""
    yield from _retention(job).begin()
    if start != 0:
        yield from remove_others(job, job.config.sft.steps if start is None else start)


def remove_others(job: SftJob, newest: int) -> Iterator[CheckpointRemoved]:
    """Remove the checkpoints that ``sft.keep`` does not hold. The `newest` always stays: training goes on from it."""
    keep = parse_keep(job.config.sft.keep)
    if keep.all:
        return
    steps = find_bundles(job.output / BUNDLES)
    kept = keep.kept(steps, scores_of(metrics_log(job.output).entries()))
    yield from _retention(job).keep({*kept, newest})


def _retention(job: SftJob) -> Retention:
    return Retention(job.output, (RAW, ADAPTERS), job.guardian)


def _write(job: SftJob, description: dict[str, Any], root: str, step: int, weights: dict[str, Tensor]) -> None:
    write_bundle(
        job.output / root / str(step),
        state_dict=weights,
        config=description,
        norm_stats=job.norm_stats,
        asset_id=job.config.policy.asset_id,
        step=step,
        lineage=job.lineage,
        further_norm_stats=job.further_norm_stats,
        overwrite=True,  # a run killed before it saved the training state has left the same bytes
    )


def saved(output: Path, step: int, *, verify: bool = True) -> Iterator[CheckpointSaved | FileSaved]:
    """Tell of what lies there of a step; the weights are hashed unless they were written just now."""
    for root in (BUNDLES, RAW):
        if (path := find_bundles(output / root).get(step)) is not None:
            yield CheckpointSaved(step, path, read_bundle(path, verify=verify).digest)
    for name in FILES:
        if (file := output / ADAPTERS / str(step) / name).is_file():
            yield FileSaved(file, f"{ADAPTERS}/{step}/{name}")
    if (picture := plot_of(output, step)).path.is_file():
        yield picture
