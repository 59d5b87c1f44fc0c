"""RLinf's workers, with what a sweep asks of them: take over another checkpoint, and the next list of episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rlinf.envs.utils import get_env_attr
from rlinf.workers.actor.fsdp_actor_worker import EmbodiedFSDPActor
from rlinf.workers.env.env_worker import EnvWorker
from rlinf.workers.rollout.hf.huggingface_worker import MultiStepRolloutWorker
from rlinf.workers.sft.fsdp_vla_sft_worker import FSDPVlaSftWorker

from rlinf_isaac.config import build_config
from rlinf_isaac.data.lerobot_reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local.policies import make_processor
from rlinf_isaac.engines.local.sft import Batch, load_batch
from rlinf_isaac.engines.rlinf.cpu import OnAnyDevice


class Simulators(OnAnyDevice, EnvWorker):
    """RLinf's env worker over `env.RlinfStackCube`."""

    def describe(self) -> dict[str, Any]:
        """What its environments are: ``identity``, and ``slots``, how many there are."""
        found = [get_env_attr(env, "describe")() for env in self.eval_env_list or self.env_list]
        return {"identity": found[0]["identity"], "slots": sum(each["slots"] for each in found)}

    def begin(self, play: Mapping[str, Any]) -> int:
        """Deal out the episodes of the next evaluation; returns how many rounds they take here."""
        return max(get_env_attr(env, "begin")(play) for env in self.eval_env_list)

    def set_rounds(self, rounds: int) -> None:
        """How many rollout epochs the next evaluation has."""
        self.eval_rollout_epoch = rounds


class Policies(OnAnyDevice, MultiStepRolloutWorker):
    """RLinf's rollout worker over `policy.RlinfPi0`."""

    loaded: tuple[str, str | None] | None = None

    def predict(self, env_obs: dict[str, Any], mode: str = "train") -> Any:
        """RLinf tells the mode only to models that it knows by name."""
        self.hf_model.mode = mode
        return super().predict(env_obs, mode)

    def begin(self, play: Mapping[str, Any], rounds: int) -> None:
        """Take over the checkpoint of the next evaluation in place; see `Simulators.set_rounds`."""
        self.eval_rollout_epoch = rounds
        wanted = (play["bundle"], play["norm_stats"])
        if wanted != self.loaded:
            stats = None if play["norm_stats"] is None else Path(play["norm_stats"])
            self.hf_model.load_bundle(Path(play["bundle"]), stats)
            self.loaded = wanted


class Trainer(OnAnyDevice, FSDPVlaSftWorker):
    """RLinf's fine-tuning worker over `policy.RlinfPi0`, on the batches of the local engine."""

    def build_dataloader(self, data_paths: Any, eval_dataset: bool = False) -> tuple[Any, None]:
        """This rank's share of every batch, in RLinf's order of micro batches."""
        return Batches(self), None

    def get_max_steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the frames."""
        return max(1, self.data_loader.dataset.num_frames // self.global_batch_size)


class Learner(OnAnyDevice, EmbodiedFSDPActor):
    """RLinf's actor worker over `policy.RlinfPi0`."""


class Batches:
    """The micro batches of one rank, without end. Which they are depends on the worker's global step alone, so that a
    resumed training sees what an undisturbed one does."""

    def __init__(self, worker: Trainer) -> None:
        model = worker.cfg.actor.model
        self.worker, self.dataset = worker, LeRobotDataset(Path(worker.cfg.data.train_data_paths))
        self.config = build_config(OmegaConf.to_container(model.job), "the job")
        self.processor = make_processor(self.config, from_json(Path(model.norm_stats).read_bytes()))

    def __iter__(self) -> Iterator[Batch]:
        worker = self.worker
        size, world = worker.micro_batch_size, worker._world_size
        while True:
            batch = load_batch(self.dataset, self.processor, self.config, worker.global_step)
            for index in range(worker.gradient_accumulation):
                first = (index * world + worker._rank) * size
                yield share(batch, first, first + size)


def share(batch: Batch, first: int, last: int) -> Batch:
    """Samples `first` .. `last` - 1 of a batch, with all their points of the flow."""
    points = len(batch.noise) // len(batch.actions)
    flow = slice(points * first, points * last)
    observation = batch.observation.rows(slice(first, last))
    return Batch(observation, batch.actions[first:last], batch.noise[flow], batch.time[flow])
