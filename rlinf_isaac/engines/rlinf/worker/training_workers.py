"""RLinf's training workers for `RlinfPi0`. They are separate from `workers`, because these imports take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rlinf.workers.actor.fsdp_actor_worker import EmbodiedFSDPActor
from rlinf.workers.sft.fsdp_vla_sft_worker import FSDPVlaSftWorker

from rlinf_isaac.config import build_config
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local.sft.batches import TrainingBatch, load_batch, rows_of
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.engines.rlinf.worker.cpu import OnAnyDevice


class Trainer(OnAnyDevice, FSDPVlaSftWorker):
    """RLinf's fine-tuning worker for `RlinfPi0`, with the batches of the local engine."""

    def build_dataloader(self, data_paths: Any, eval_dataset: bool = False) -> tuple[Any, None]:
        """The micro-batches of this rank, in RLinf's order."""
        return Batches(self), None

    def get_max_steps_per_epoch(self) -> int:
        """Number of optimiser steps in one epoch."""
        return max(1, self.data_loader.dataset.num_frames // self.global_batch_size)


class Learner(OnAnyDevice, EmbodiedFSDPActor):
    """RLinf's actor worker for `RlinfPi0`."""


class Batches:
    """Endless iterable of the micro-batches of one rank; other rows are not loaded.

    A micro-batch depends only on the worker's global step, so a resumed training gets the same batches as an
    uninterrupted one.
    """

    def __init__(self, worker: Trainer) -> None:
        model = worker.cfg.actor.model
        self.worker, self.dataset = worker, LeRobotDataset(Path(worker.cfg.data.train_data_paths))
        self.config = build_config(OmegaConf.to_container(model.job), "the job")
        self.processor = make_processor(self.config, from_json(Path(model.norm_stats).read_bytes()))

    def __iter__(self) -> Iterator[TrainingBatch]:
        worker = self.worker
        size, parts = worker.micro_batch_size, worker.gradient_accumulation
        rows = rows_of(worker._rank, worker._world_size, size, parts)
        while True:
            batch = load_batch(self.dataset, self.processor, self.config, worker.global_step, rows)
            yield from (batch.rows(part * size, (part + 1) * size) for part in range(parts))
