"""The training states that a training may go on from: that of the newest checkpoint, and one to go back to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.steps import CHECKPOINTS
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl.optimisers import Optimisers
from rlinf_isaac.engines.local.rl.start import go_back, load_policy_and_optimisers
from rlinf_isaac.engines.local.sft.adapter_files import read_adapters
from rlinf_isaac.engines.local.sft.saving import ADAPTERS
from rlinf_isaac.engines.local.training.training_state import TrainingState
from rlinf_isaac.ground.atomic import new_directory
from rlinf_isaac.pi0.flow_policy import FlowActorCritic


class States:
    """The states in the directory `output` of a job: ``training_state`` of the newest checkpoint, and ``kept_state`` of
    the one that a roll-back would choose, unless that is the newest."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.newest = TrainingState(output / "training_state")
        self.kept = TrainingState(output / "kept_state")

    @property
    def steps(self) -> list[int]:
        """Iterations whose state there is; 0 stands for none."""
        return [self.newest.step, self.kept.step]

    def save(self, iteration: int, tensors: Mapping[str, torch.Tensor], needed: int) -> None:
        """Write the state of an iteration over that of the checkpoint before it, which is kept if it is `needed`."""
        if needed and needed == self.newest.step:
            with new_directory(self.kept.directory, replace=True) as temporary:
                for file in self.newest.directory.iterdir():
                    _link(file, temporary / file.name)
        self.newest.save(iteration, tensors)

    def load(self, job: RlJob, iteration: int) -> tuple[FlowActorCritic, Optimisers]:
        """The policy after an iteration (0: of the start checkpoint), and its optimisers with their state."""
        policy, optimisers = load_policy_and_optimisers(job, self._bundle(iteration))
        self._complete(policy, optimisers, iteration)
        return policy, optimisers

    def go_back(self, job: RlJob, policy: FlowActorCritic, iteration: int) -> Optimisers:
        """Give the policy the weights after an earlier iteration again, in place (0: of the start checkpoint); returns
        new optimisers with their state of that time."""
        optimisers = go_back(job, policy, self._bundle(iteration))
        self._complete(policy, optimisers, iteration)
        return optimisers

    def _bundle(self, iteration: int) -> Bundle | None:
        return read_bundle(self.output / CHECKPOINTS / str(iteration)) if iteration else None

    def _complete(self, policy: FlowActorCritic, optimisers: Optimisers, iteration: int) -> None:
        """Load what the bundle of an iteration lacks.

        The state is gone if a later checkpoint that looked sound has since turned out to be worse. Then, as at the
        start, the optimisers begin anew.
        """
        found = next((state for state in (self.newest, self.kept) if state.step == iteration), None)
        if iteration and found is not None:
            optimisers.restore(found, iteration)
        elif iteration and policy.rl.trainable == "lora":
            optimisers.set_trained(read_adapters(self.output / ADAPTERS / str(iteration)))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # states of a full-size policy have gigabytes
    except OSError:
        shutil.copyfile(source, target)
