"""Supervised fine-tuning of pi0 with the flow-matching loss.

Every random choice is a function of (seed, step): which frames are in the batch, their noise, their flow time. So a run
that was killed and resumed from its last checkpoint ends with the same bytes as one that was not (same machine, same
number of threads). What an earlier, interrupted run saved is announced again before training goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import torch

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config.sft_schema import SftConfig
from rlinf_isaac.data.mixture import open_datasets
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.data.subset import training_part
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local.sft.device_memory import explained, peak_memory
from rlinf_isaac.engines.local.sft.ema import Average
from rlinf_isaac.engines.local.sft.loading import BatchLoader
from rlinf_isaac.engines.local.sft.saving import save, saved
from rlinf_isaac.engines.local.sft.schedule import learning_rate
from rlinf_isaac.engines.local.sft.start import model_and_optimiser
from rlinf_isaac.engines.local.sft.update import Outcome, update
from rlinf_isaac.engines.local.sft.watching import Watching
from rlinf_isaac.engines.local.training.processes import team_of_torchrun, train_in_processes, train_with_others
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.local.training.training_state import TrainingState
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.engines.resume import metrics_log, resume
from rlinf_isaac.ground.atomic import locked
from rlinf_isaac.ground.events import Event, Metrics, Progress


def train(job: SftJob) -> Iterator[Event]:
    """Train from the last checkpoint in ``job.output``, or from scratch; yields every checkpoint and metric of the job.

    Raises:
        TrainingDiverged: the loss or the gradient is not finite; checkpoints saved before stay.
        TrainingOutOfMemory: the device cannot hold a step; checkpoints saved before stay.
    """
    job.output.mkdir(parents=True, exist_ok=True)
    team = team_of_torchrun()
    with locked(job.output) if team is None or team.first else nullcontext():
        if team is not None:
            yield from train_with_others(job, team, train_as)
            return
        if job.processes > 1:
            yield from train_in_processes(job, train_as)
        else:
            yield from train_as(job, Team())


def train_as(job: SftJob, team: Team) -> Iterator[Event]:
    """`train` as one of the processes of `team`, of which the first one writes files."""
    config = job.config.sft
    checkpoints = job.output / "checkpoints"
    metrics = metrics_log(job.output)
    state = TrainingState(job.output / "training_state")
    start = yield from resume(job.output, "sft", config.steps, [state.step], saved, alone=team.first)
    if start is None:
        return

    if job.config.compute.threads:
        torch.set_num_threads(job.config.compute.threads)
    # The held-out episodes are taken away from what batches are drawn of; they never train.
    whole = open_datasets(job.datasets, config.mix)
    dataset = training_part(whole, config.val_episodes, config.seed)
    processor = make_processor(job.config, from_json(job.norm_stats))
    description = job.description(whole)
    with explained(job.config):
        # The weights come from the checkpoint, the moments, float32 copies and averages from the state.
        bundle = read_bundle(checkpoints / str(start)) if start else None
        spread, optimiser = model_and_optimiser(job, team, bundle)
        model = spread.model
        average = Average(model, optimiser, config.ema_decay)
        if start:
            average.restore(state.restore_optimiser(start, model, optimiser))

    losses, norms, since = [], [], time.perf_counter()
    unread, detail = deque[Outcome](), ""
    device = team.device(job.config.compute.device)
    with (
        Watching(job, whole, processor, team, metrics) as watching,
        BatchLoader(job.config, dataset, processor, start, team.rows(config.batch_size)) as batches,
    ):
        if start:
            yield from watching.catch_up(read_bundle(checkpoints / str(start)))
        for step in range(start + 1, config.steps + 1):
            with explained(job.config):
                # One step: flow-matching loss, backward pass, clipping, AdamW; then the average of the weights.
                unread.append(update(spread, optimiser, batches.get(step - 1), job.config, step, team))
                average.update()
                # A GPU works on this step while the loss of the one before is read. Where somebody is about to hear of
                # them, or weights are to be saved or measured, all are read first.
                while unread and (unread[0].ready or len(unread) > 1 or _pauses(config, step)):
                    loss, norm = unread.popleft().read()
                    losses.append(loss)
                    norms.append(norm)
                    detail = f"loss {loss:.4f}"
            if step % config.log_interval == 0 or step == config.steps:
                # Metrics are means over the steps since the last ones. They are on disk before anybody hears of them.
                times = _times(len(losses), time.perf_counter() - since, batches.waited_s, config.batch_size)
                values = _summary(losses, norms, learning_rate(config, step)) | times | peak_memory(device)
                entry = Metrics(step, values)
                if team.first:
                    metrics.append(entry)
                yield entry
                losses, norms, since, batches.waited_s = [], [], time.perf_counter(), 0.0
            # Where it is due: measure on held-out episodes, save, play with what was saved.
            paused = time.perf_counter()
            yield from watching.validate(model, average, step)
            if step % config.save_interval == 0 or step == config.steps:
                yield from save(job, description, state, model, optimiser, average, step, team)
                if team.first:
                    yield from watching.play(read_bundle(checkpoints / str(step), verify=False))
            since += time.perf_counter() - paused  # the rate is that of the training
            yield Progress("sft", step, config.steps, detail)


def _pauses(config: SftConfig, step: int) -> bool:
    """Whether something is logged, saved or measured after `step`."""
    intervals = config.log_interval, config.save_interval, config.val_interval if config.val_episodes else 0
    return step == config.steps or any(every and step % every == 0 for every in intervals)


def _summary(losses: list[float], norms: list[float], lr: float) -> dict[str, float]:
    return {
        "train/loss": float(np.mean(losses)),
        "train/grad_norm": float(np.mean(norms)),
        "train/learning_rate": lr,
    }


def _times(steps: int, seconds: float, waited_s: float, batch_size: int) -> dict[str, float]:
    """Speeds, and for how many seconds a step waited for its batch."""
    return {
        "time/steps_per_second": steps / seconds,
        "time/samples_per_second": steps * batch_size / seconds,
        "time/data_wait": waited_s / steps,
    }
