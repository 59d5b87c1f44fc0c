"""Measures the loss and the error of sampled actions on held-out episodes during a training.

Noise and flow times are the same at every measurement and in every training with the same seed, so that only the model
changes between two measurements.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.mixture import AnyDataset, Mixture
from rlinf_isaac.data.subset import Subset, held_out_part
from rlinf_isaac.engines.local.sft.batches import TrainingBatch, flow_time, load_frames
from rlinf_isaac.engines.local.sft.plot import plot_chunks
from rlinf_isaac.engines.local.sft.task_frames import AnyProcessor, TaskProcessors
from rlinf_isaac.engines.local.sft.update import flow_loss
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.pi0.model import Pi0

STREAM = 6
"""Part of the seed; makes these random numbers independent of those of the training with the same seed."""


class Validation:
    """Measurements on the held-out episodes of a job.

    Args:
        dataset: the whole dataset.
        processor: pre- and post-processing of the job.
        config: config of the job; ``sft.val_episodes`` is above 0.
        team: the processes of the training; each measures its share of the frames.
    """

    def __init__(self, dataset: AnyDataset, processor: AnyProcessor, config: JobConfig, team: Team) -> None:
        self._config, self._processor, self._team = config, processor, team
        self._data = held_out_part(dataset, config.sft.val_episodes, config.sft.seed)
        count = min(config.sft.val_frames, self._data.num_frames)
        # Spread the frames evenly over the episodes, so that every phase of the task is represented.
        self._frames = np.linspace(0, self._data.num_frames - 1, count).round().astype(np.int64)

    @torch.no_grad()
    def measure(self, model: Pi0) -> dict[str, float]:
        """Metrics of `model` on the held-out frames: ``val/loss``, the flow-matching loss; and ``val/action_mse``, the
        mean squared error of sampled action chunks against the recorded ones, normalised, over the robot's dims.

        Collective call: every process must call it.
        """
        config, real = self._config, self._config.policy.env_action_dim
        loss = error = count = 0.0
        model.eval()
        for batch, _ in self._batches(self._share()):
            observation, actions, noise, time = batch.on(self._team.device(config.compute.device))
            loss += float(flow_loss(model(observation, actions, noise, time), config)) * len(actions)
            chunks = model.sample(observation, noise, config.policy.denoise_steps)
            error += float((chunks[..., :real] - actions[..., :real]).square().mean()) * len(actions)
            count += len(actions)
        model.train()
        device = self._team.device(config.compute.device)
        total = self._team.mean(torch.tensor([loss, error, count], dtype=torch.float64, device=device))
        return {"val/loss": float(total[0] / total[2]), "val/action_mse": float(total[1] / total[2])}

    @torch.no_grad()
    def plot(self, model: Pi0, step: int, path: Path) -> None:
        """Plot the policy's actions along the first held-out episode, with the recorded ones.

        Collective call: every process must call it; only the first one writes the PNG.
        """
        config, chunk = self._config, self._config.policy.action_chunk
        first = Subset(self._data.dataset, self._data.episodes[:1])
        dataset, processor, frames = self._data.dataset, self._processor, first.frames
        if isinstance(processor, TaskProcessors):  # the episode is of one of several tasks
            assert isinstance(dataset, Mixture)
            numbers, frames = first.located(np.arange(first.num_frames))
            dataset, (config, processor) = dataset.datasets[numbers[0]], processor.of(int(numbers[0]))
        task = task_of(config)
        starts = np.arange(0, first.num_frames, chunk)
        predicted = []
        model.eval()
        for batch, states in self._batches(starts, first):
            observation, _, noise, _ = batch.on(self._team.device(config.compute.device))
            chunks = model.sample(observation, noise, config.policy.denoise_steps)
            predicted.append(processor.robot_actions(chunks[:, :chunk], states[:, : task.state.dims]))
        model.train()
        if self._team.first:
            names = dataset.features[task.action.dataset].dim_names
            recorded = dataset.column(task.action.dataset)[frames][:, : config.policy.env_action_dim]
            title = f"step {step}, held-out episode {self._data.episodes[0]}"
            plot_chunks(path, recorded, starts, np.concatenate(predicted), names, dataset.fps, title)

    def _share(self) -> np.ndarray:
        """The frames of this process. All processes have the same number, because sharded models run together."""
        size = self._team.size
        whole = self._frames[: max(1, len(self._frames) // size) * size]
        return np.resize(whole, -(-len(whole) // size) * size)[self._team.rank :: size]

    def _batches(self, frames: np.ndarray, data: Subset | None = None) -> Iterator[tuple[TrainingBatch, np.ndarray]]:
        """Batches of the training's size (or of ``sft.micro_batch`` if set), and their states in robot units."""
        data, sft = data or self._data, self._config.sft
        size = max(1, (sft.micro_batch or sft.batch_size) // (1 if sft.micro_batch else self._team.size))
        for first in range(0, len(frames), size):
            yield self._batch(data, frames[first : first + size])

    def _batch(self, data: Subset, indices: np.ndarray) -> tuple[TrainingBatch, np.ndarray]:
        observation, actions, states = load_frames(data, self._processor, self._config, indices)
        randoms = [np.random.default_rng([self._config.sft.seed, STREAM, int(data.frames[each])]) for each in indices]
        noise = np.stack([each.standard_normal(actions.shape[1:], dtype=np.float32) for each in randoms])
        time = flow_time(np.array([each.random() for each in randoms])).astype(np.float32)
        return TrainingBatch(observation, actions, torch.from_numpy(noise), torch.from_numpy(time), {}), states
