"""Makes the batches of the training. The frames, noise and flow times of a batch are functions of (seed, step)."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.mixture import AnyDataset, Mixture
from rlinf_isaac.data.subset import Subset
from rlinf_isaac.engines.local.sft.task_frames import AnyProcessor, TaskProcessors
from rlinf_isaac.pi0.augmentation import Changes, changed, draw
from rlinf_isaac.pi0.observation import Observation, to_device

Rows = slice | np.ndarray
"""Rows of a batch: a slice, or row numbers (n,) int64."""


class TrainingBatch(NamedTuple):
    """Input of one optimiser step; K is `SftConfig.flow_samples`.

    Attributes:
        observation: observations of B frames.
        actions: (B, H, A) normalised actions.
        noise: (K B, H, A).
        time: (K B,) flow times.
        changes: camera -> augmentation of its images.
    """

    observation: Observation
    actions: torch.Tensor
    noise: torch.Tensor
    time: torch.Tensor
    changes: dict[str, Changes]

    def on(self, device: torch.device) -> tuple[Observation, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The arguments of `Pi0.forward` on `device`; the images are augmented there."""
        actions, noise, time = (to_device(tensor, device) for tensor in (self.actions, self.noise, self.time))
        return changed(self.observation.to(device), self.changes), actions, noise, time

    def rows(self, first: int, last: int) -> TrainingBatch:
        """Samples `first` .. `last` - 1, with all their flow samples."""
        index, flow = slice(first, last), flow_points(first, last, len(self.noise) // len(self.actions))
        changes = {camera: change.rows(index) for camera, change in self.changes.items()}
        return TrainingBatch(
            self.observation.rows(index), self.actions[index], self.noise[flow], self.time[flow], changes
        )


def flow_points(first: int, last: int, points: int) -> slice:
    """Slice of the noise and flow times of samples `first` .. `last` - 1, each of which has `points` flow samples."""
    return slice(points * first, points * last)


def rows_of(rank: int, world: int, size: int, accumulation: int) -> np.ndarray:
    """Rows of a batch for process `rank` of `world`, (accumulation * size,) int64.

    The batch is cut into micro-batches of `size` rows, which are assigned to ranks 0 .. world - 1 in turn.
    """
    first = (np.arange(accumulation) * world + rank) * size
    return (first[:, None] + np.arange(size)).reshape(-1)


def batch_indices(num_frames: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Frames of the batch of `step` (0-based), (batch_size,) int64: consecutive pieces of one permutation per epoch."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    indices = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(positions // num_frames):
        chosen = positions // num_frames == epoch
        indices[chosen] = _epoch_order(num_frames, seed, int(epoch))[positions[chosen] % num_frames]
    return indices


def batch_frames(dataset: AnyDataset | Subset, batch_size: int, seed: int, step: int) -> np.ndarray:
    """`batch_indices` of a dataset; in a mixture, or part of one, frames are drawn by the weights of the datasets."""
    indices = batch_indices(dataset.num_frames, batch_size, seed, step)
    if isinstance(dataset, Mixture | Subset) and dataset.counts is not None:
        epochs = np.arange(step * batch_size, (step + 1) * batch_size) // dataset.num_frames
        for epoch in np.unique(epochs):
            indices[epochs == epoch] = dataset.drawn(seed, int(epoch))[indices[epochs == epoch]]
    return indices


@lru_cache(maxsize=2)
def _epoch_order(num_frames: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 1, epoch]).permutation(num_frames)


def load_frames(
    dataset: AnyDataset | Subset, processor: AnyProcessor, config: JobConfig, indices: np.ndarray
) -> tuple[Observation, torch.Tensor, np.ndarray]:
    """Load the frames `indices`: observation, normalised actions (B, H, A), states (B, D) in robot units.

    In a suite each frame is made by its own task, and its state is followed by zeros where it has fewer dims than that
    of another task.
    """
    if isinstance(processor, TaskProcessors):
        assert isinstance(dataset, Mixture | Subset)
        return processor.join(*dataset.located(indices), partial(_of_suite, dataset, processor))
    task = task_of(config)
    states = dataset.column(task.state.dataset)[indices]
    observation = processor.observation(
        {slot: dataset.images(camera.dataset, indices) for slot, camera in task.cameras.items()},
        states,
        [dataset.prompt(int(index)) for index in indices],
    )
    chunks = dataset.action_chunks(indices, config.model.action_horizon, task.action.dataset)
    return observation, processor.target_actions(chunks, states), states


def _of_suite(
    dataset: Mixture | Subset, processors: TaskProcessors, number: int, indices: np.ndarray
) -> tuple[Observation, torch.Tensor, np.ndarray]:
    """Frames of one task of a suite, by their indices in its own dataset."""
    mixture = dataset.dataset if isinstance(dataset, Subset) else dataset
    assert isinstance(mixture, Mixture)
    config, processor = processors.of(number)
    return load_frames(mixture.datasets[number], processor, config, indices)


def flow_time(uniform: np.ndarray) -> np.ndarray:
    """Flow times Beta(1.5, 1) * 0.999 + 0.001, as in OpenPI, from uniform numbers in [0, 1)."""
    # Inverse of the Beta(1.5, 1) distribution function u = x^1.5.
    return uniform ** (1 / 1.5) * 0.999 + 0.001


def load_batch(
    dataset: AnyDataset | Subset, processor: AnyProcessor, config: JobConfig, step: int, rows: Rows = slice(None)
) -> TrainingBatch:
    """Load rows of the batch of `step` (0-based), on the CPU.

    The noise, flow times and augmentation of a row are the same regardless of which other rows are loaded.
    """
    size, points = config.sft.batch_size, config.sft.flow_samples
    numbers = np.arange(size)[rows]
    indices = batch_frames(dataset, size, config.sft.seed, step)[numbers]
    observation, actions, _ = load_frames(dataset, processor, config, indices)
    random = np.random.default_rng([config.sft.seed, 2, step])
    noise = random.standard_normal((size * points, *actions.shape[1:]), dtype=np.float32)
    time = flow_time(random.random(size * points))
    random = np.random.default_rng([config.sft.seed, 3, step])
    drawn = {name: draw(config.sft.augment, name, size, random) for name in observation.present_cameras or ()}
    changes = {
        name: change.rows(torch.from_numpy(numbers))
        for name, change in drawn.items()
        if any(field is not None for field in change)
    }
    flow = (points * numbers[:, None] + np.arange(points)).reshape(-1)
    tensors = (torch.from_numpy(noise[flow]), torch.from_numpy(time[flow].astype(np.float32)))
    return TrainingBatch(observation, actions, *tensors, changes)
