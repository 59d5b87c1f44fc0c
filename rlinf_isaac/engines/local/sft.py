"""Supervised fine-tuning of pi0 with the flow-matching loss.

Every random choice is a function of (seed, step): which frames are in the batch, their noise, their flow time. So a run
that was killed and resumed from its last checkpoint ends with the same bytes as one that was not (same machine, same
number of threads). What an earlier, interrupted run saved is announced again before training goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rlinf_isaac.atomic import locked
from rlinf_isaac.checkpoint.bundle import Bundle, find_bundles, read_bundle, write_bundle
from rlinf_isaac.checkpoint.description import checkpoint_config
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config.schema import JobConfig, SftConfig
from rlinf_isaac.data.lerobot_format import FRONT_IMAGE, STATE, WRIST_IMAGE
from rlinf_isaac.data.lerobot_reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local.optimiser import MasterAdamW, clip_gradients, gradient_norm
from rlinf_isaac.engines.local.policies import make_processor
from rlinf_isaac.engines.local.team import Team, train_in_processes
from rlinf_isaac.engines.local.training_state import MetricsLog, TrainingState, optimiser_tensors
from rlinf_isaac.errors import TrainingDiverged
from rlinf_isaac.events import CheckpointSaved, Event, Metrics, Progress
from rlinf_isaac.pi0.augmentation import Changes, changed, draw
from rlinf_isaac.pi0.compiled import checkpoint_activations, compile_blocks
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.observation import Observation
from rlinf_isaac.pi0.policy import Processor
from rlinf_isaac.pi0.precision import to_precision

IMAGE_FEATURES = {"front": FRONT_IMAGE, "wrist": WRIST_IMAGE}


class Batch(NamedTuple):
    """One optimiser step's input: observation, normalised actions (B, H, A), noise (K B, H, A), flow time (K B,), and
    what is to change in the images of each camera.

    K is `SftConfig.flow_samples`.
    """

    observation: Observation
    actions: torch.Tensor
    noise: torch.Tensor
    time: torch.Tensor
    changes: dict[str, Changes]

    def on(self, device: torch.device) -> tuple[Observation, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The arguments of `Pi0.forward` on `device`, the images changed there."""
        actions, noise, time = (tensor.to(device) for tensor in (self.actions, self.noise, self.time))
        return changed(self.observation.to(device), self.changes), actions, noise, time

    def rows(self, first: int, last: int) -> Batch:
        """Samples `first` .. `last` - 1, with all their points of the flow."""
        index, flow = slice(first, last), flow_points(first, last, len(self.noise) // len(self.actions))
        changes = {camera: change.rows(index) for camera, change in self.changes.items()}
        return Batch(self.observation.rows(index), self.actions[index], self.noise[flow], self.time[flow], changes)


def flow_points(first: int, last: int, points: int) -> slice:
    """Where the noise and the flow times of samples `first` .. `last` - 1 are, each of which has `points`."""
    return slice(points * first, points * last)


def flow_loss(errors: torch.Tensor, config: JobConfig) -> torch.Tensor:
    """The loss, a scalar, of the squared errors (..., A) that `Pi0.forward` gives."""
    if config.sft.loss_on_real_dims:
        errors = errors[..., : config.policy.env_action_dim]
    return errors.mean()


def train(job: SftJob) -> Iterator[Event]:
    """Train from the last checkpoint in ``job.output``, or from scratch; yields every checkpoint and metric of the job.

    Raises:
        TrainingDiverged: the loss or the gradient is not finite; checkpoints saved before stay.
    """
    job.output.mkdir(parents=True, exist_ok=True)
    with locked(job.output):
        if job.config.compute.num_processes > 1:
            yield from train_in_processes(job, train_as)
        else:
            yield from train_as(job, Team())


def train_as(job: SftJob, team: Team) -> Iterator[Event]:
    """`train` as one of the processes of `team`, of which the first one writes files."""
    config = job.config.sft
    checkpoints = job.output / "checkpoints"
    metrics = MetricsLog(job.output / "metrics.jsonl")
    state = TrainingState(job.output / "training_state")
    start = state.step if state.step in find_bundles(checkpoints) else 0
    if team.first:
        yield from _announce(checkpoints, metrics, start)
    if start >= config.steps:
        yield Progress("sft", config.steps, config.steps, "complete")
        return

    if job.config.compute.threads:
        torch.set_num_threads(job.config.compute.threads)
    dataset = LeRobotDataset(job.dataset)
    processor = make_processor(job.config, from_json(job.norm_stats))
    description = checkpoint_config(job.config, dataset)
    model, optimiser = _model_and_optimiser(job.config, team, read_bundle(checkpoints / str(start)) if start else None)
    if start:
        state.restore_optimiser(start, model, optimiser)

    losses, norms, since = [], [], time.perf_counter()
    with ThreadPoolExecutor(1, "batch") as reader:  # decodes the next images while the model trains on these
        rows = team.rows(config.batch_size)
        upcoming = reader.submit(load_batch, dataset, processor, job.config, start, rows)
        for step in range(start + 1, config.steps + 1):
            batch = upcoming.result()
            if step < config.steps:
                upcoming = reader.submit(load_batch, dataset, processor, job.config, step, rows)
            loss, norm = _update(model, optimiser, batch, job.config, step, team)
            losses.append(loss)
            norms.append(norm)
            if step % config.log_interval == 0 or step == config.steps:
                rate = len(losses) / (time.perf_counter() - since)
                entry = Metrics(step, _summary(losses, norms, learning_rate(config, step), rate))
                if team.first:
                    metrics.append(entry)
                yield entry
                losses, norms, since = [], [], time.perf_counter()
            if step % config.save_interval == 0 or step == config.steps:
                yield from _save(job, description, state, model, optimiser, step, team)
            yield Progress("sft", step, config.steps, f"loss {loss:.4f}")


def learning_rate(config: SftConfig, step: int) -> float:
    """Learning rate of 1-based `step`: linear warm-up, then cosine down to ``final_lr_ratio * lr`` at the last step."""
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * (config.final_lr_ratio + (1 - config.final_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done)))


def batch_indices(num_frames: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Frames of the batch of 0-based `step`: consecutive pieces of one permutation per epoch, (batch_size,) int64."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    indices = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(positions // num_frames):
        chosen = positions // num_frames == epoch
        indices[chosen] = _epoch_order(num_frames, seed, int(epoch))[positions[chosen] % num_frames]
    return indices


@lru_cache(maxsize=2)
def _epoch_order(num_frames: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 1, epoch]).permutation(num_frames)


def load_batch(
    dataset: LeRobotDataset, processor: Processor, config: JobConfig, step: int, rows: slice = slice(None)
) -> Batch:
    """Rows of the batch of 0-based `step`, on the CPU. Flow time is Beta(1.5, 1) * 0.999 + 0.001, as OpenPI.

    A row has its noise, its time and its changes whichever others are asked for with it.
    """
    size, points = config.sft.batch_size, config.sft.flow_samples
    indices = batch_indices(dataset.num_frames, size, config.sft.seed, step)[rows]
    states = dataset.column(STATE)[indices]
    observation = processor.observation(
        {camera: dataset.images(feature, indices) for camera, feature in IMAGE_FEATURES.items()},
        states,
        [dataset.prompt(int(index)) for index in indices],
    )
    actions = processor.target_actions(dataset.action_chunks(indices, config.model.action_horizon), states)
    random = np.random.default_rng([config.sft.seed, 2, step])
    noise = random.standard_normal((size * points, *actions.shape[1:]), dtype=np.float32)
    # The inverse of the Beta(1.5, 1) distribution function u = x^1.5.
    flow_time = random.random(size * points) ** (1 / 1.5) * 0.999 + 0.001
    random = np.random.default_rng([config.sft.seed, 3, step])
    drawn = {name: draw(config.sft.augment, name, size, random) for name in observation.present_cameras or ()}
    changes = {name: change.rows(rows) for name, change in drawn.items() if any(field is not None for field in change)}
    first, last, _ = rows.indices(size)
    flow = flow_points(first, last, points)
    tensors = (torch.from_numpy(noise[flow]), torch.from_numpy(flow_time[flow].astype(np.float32)))
    return Batch(observation, actions, *tensors, changes)


def _model_and_optimiser(config: JobConfig, team: Team, start: Bundle | None) -> tuple[Pi0, torch.optim.AdamW]:
    device = team.device(config.compute.device)
    with device:  # a full-size model is built in seconds on a GPU, in minutes on a CPU
        model = Pi0(config.model)
    initialise(model, config.sft.seed)
    to_precision(model, config.compute.dtype).train()
    if start is not None:
        load_weights(start, model)
    checkpoint_activations(model, config.sft.activation_checkpointing)
    if config.compute.compile and device.type == "cuda" and team.size == 1:
        compile_blocks(model)
    team.shard(model)
    kind = MasterAdamW if config.compute.master_weights else torch.optim.AdamW
    optimiser = kind(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=config.sft.lr,
        betas=(config.sft.beta1, config.sft.beta2),
        weight_decay=config.sft.weight_decay,
        fused=True,
    )
    return model, optimiser


def _update(
    model: Pi0, optimiser: torch.optim.AdamW, batch: Batch, config: JobConfig, step: int, team: Team
) -> tuple[float, float]:
    device = team.device(config.compute.device)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config.sft, step)
    optimiser.zero_grad(set_to_none=True)
    size = len(batch.actions)
    step_size = config.sft.micro_batch or size
    parts = []
    for first in range(0, size, step_size):
        part = batch.rows(first, first + step_size)
        loss = flow_loss(model(*part.on(device)), config) * (len(part.actions) / size)
        loss.backward()
        parts.append(loss.detach())
    norm = gradient_norm(model.parameters())
    value, norm_value = team.mean(torch.stack(parts).sum()).item(), float(norm)
    if not (math.isfinite(value) and math.isfinite(norm_value)):
        raise TrainingDiverged(
            f"loss {value}, gradient norm {norm_value} at step {step}; the checkpoints before it are kept. "
            f"Lower sft.lr (now {config.sft.lr}) or check the data with norm_stats"
        )
    clip_gradients(model.parameters(), norm, config.sft.clip_grad_norm)
    optimiser.step()
    return value, norm_value


def _summary(losses: list[float], norms: list[float], lr: float, rate: float) -> dict[str, float]:
    return {
        "train/loss": float(np.mean(losses)),
        "train/grad_norm": float(np.mean(norms)),
        "train/learning_rate": lr,
        "time/steps_per_second": rate,
    }


def _save(
    job: SftJob,
    description: dict[str, Any],
    state: TrainingState,
    model: Pi0,
    optimiser: torch.optim.AdamW,
    step: int,
    team: Team,
) -> Iterator[CheckpointSaved]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    weights = team.collect({id(parameter): parameter.detach() for parameter in parameters.values()})
    moments = team.collect(optimiser_tensors(model, optimiser))
    if not team.first:
        return
    path = job.output / "checkpoints" / str(step)
    bundle = write_bundle(
        path,
        state_dict={name: weights[id(parameter)] for name, parameter in parameters.items()},
        config=description,
        norm_stats=job.norm_stats,
        asset_id=job.config.policy.asset_id,
        step=step,
        lineage=job.lineage,
        overwrite=True,  # of a run that was killed before it saved the training state; the bytes will be equal
    )
    state.save(step, moments)
    yield CheckpointSaved(step, path, bundle.digest)


def _announce(checkpoints: Path, metrics: MetricsLog, until: int) -> Iterator[Event]:
    saved = {step: path for step, path in find_bundles(checkpoints).items() if step <= until}
    yield from metrics.rewind(until)
    for step, path in sorted(saved.items()):
        yield CheckpointSaved(step, path, read_bundle(path).digest)
