"""Supervised fine-tuning of pi0 with the flow-matching loss.

Every random choice (the frames of a batch, their noise and flow times) is a function of (seed, step). So a run that is
killed and resumed from its last checkpoint ends with the same bytes as an uninterrupted one, on the same machine with
the same number of threads. A resumed run first yields the events of everything that is saved already.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config.sft_schema import SftConfig
from rlinf_isaac.data.mixture import open_datasets
from rlinf_isaac.data.subset import training_part
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local.sft.device_memory import explained, peak_memory
from rlinf_isaac.engines.local.sft.ema import Average
from rlinf_isaac.engines.local.sft.loading import BatchLoader
from rlinf_isaac.engines.local.sft.saving import begin_removal, remove_others, save, saved
from rlinf_isaac.engines.local.sft.schedule import learning_rate
from rlinf_isaac.engines.local.sft.start import model_and_optimiser
from rlinf_isaac.engines.local.sft.task_frames import processor_of
from rlinf_isaac.engines.local.sft.update import StepResult, update
from rlinf_isaac.engines.local.sft.watching import Watching
from rlinf_isaac.engines.local.training.processes import train_together
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.local.training.training_state import TrainingState
from rlinf_isaac.engines.resume import metrics_log, resume
from rlinf_isaac.ground.events import Event, Metrics, Progress


def train(job: SftJob) -> Iterator[Event]:
    """Train from the last checkpoint in ``job.output``, or from scratch; yields every checkpoint and metric of the job.

    Raises:
        TrainingDiverged: the loss or the gradient is not finite; earlier checkpoints are kept.
        TrainingOutOfMemory: the device has too little memory for a step; earlier checkpoints are kept.
    """
    return train_together(job, train_as)


def train_as(job: SftJob, team: Team) -> Iterator[Event]:
    """Run `train` in one process of `team`; only the first process writes files."""
    config = job.config.sft
    checkpoints = job.output / "checkpoints"
    metrics = metrics_log(job.output)
    state = TrainingState(job.output / "training_state")
    start = yield from resume(job.output, "sft", config.steps, [state.step], saved, alone=team.first)
    if team.first:
        yield from begin_removal(job, start)
    if start is None:
        return

    if job.config.compute.threads:
        torch.set_num_threads(job.config.compute.threads)
    # Leave the held-out episodes out of the training data.
    whole = open_datasets(job.datasets, config.mix)
    dataset = training_part(whole, config.val_episodes, config.seed)
    processor = processor_of(job)
    description = job.description(whole)
    with explained(job.config):
        # Load the weights from the checkpoint; restore AdamW's moments, float32 copies and averages from the state.
        bundle = read_bundle(checkpoints / str(start)) if start else None
        spread, optimiser = model_and_optimiser(job, team, bundle)
        model = spread.model
        average = Average(model, optimiser, config.ema_decay)
        if start:
            average.restore(state.restore_optimiser(start, model, optimiser))

    losses, norms, since = [], [], time.perf_counter()
    unread, detail = deque[StepResult](), ""
    device = team.device(job.config.compute.device)
    with (
        Watching(job, whole, processor, team, metrics) as watching,
        BatchLoader(job.config, dataset, processor, start, team.rows(config.batch_size)) as batches,
    ):
        # If the run was killed between saving and evaluating a checkpoint, evaluate it now.
        if start:
            yield from watching.catch_up(read_bundle(checkpoints / str(start)))
        for step in range(start + 1, config.steps + 1):
            with explained(job.config):
                # Get the batch of this step (a function of seed and step, loaded ahead), and update the policy:
                # flow-matching loss, backward pass, gradient clipping, AdamW.
                unread.append(update(spread, optimiser, batches.get(step - 1), job.config, step, team))
                # Update the moving average of the weights.
                average.update()
                # Read the loss one step late, so that the GPU is never idle while the CPU waits for it. Read all losses
                # before metrics are logged, or weights are saved or evaluated.
                while unread and (unread[0].ready or len(unread) > 1 or _pauses(config, step)):
                    loss, norm = unread.popleft().read()
                    losses.append(loss)
                    norms.append(norm)
                    detail = f"loss {loss:.4f}"
            if step % config.log_interval == 0 or step == config.steps:
                # Log the means over the steps since the last log; they are written to disk before they are yielded.
                times = _times(len(losses), time.perf_counter() - since, batches.waited_s, config.batch_size)
                values = _summary(losses, norms, learning_rate(config, step)) | times | peak_memory(device)
                entry = Metrics(step, values)
                if team.first:
                    metrics.append(entry)
                yield entry
                losses, norms, since, batches.waited_s = [], [], time.perf_counter(), 0.0
            # If due, compute the validation loss on held-out episodes, save a checkpoint, and evaluate it in the
            # simulator.
            paused = time.perf_counter()
            yield from watching.validate(model, average, step)
            if step % config.save_interval == 0 or step == config.steps:
                yield from save(job, description, state, model, optimiser, average, step, team)
                if team.first:
                    yield from watching.play(read_bundle(checkpoints / str(step), verify=False))
                    yield from remove_others(job, step)
            since += time.perf_counter() - paused  # leave this time out of the training speed
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
    """Training speed, and the mean time in seconds that a step waited for its batch."""
    return {
        "time/steps_per_second": steps / seconds,
        "time/samples_per_second": steps * batch_size / seconds,
        "time/data_wait": waited_s / steps,
    }
