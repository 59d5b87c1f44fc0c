"""The optimiser's states that a training may go on from: that of the newest checkpoint, and one to go back to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl.update import make_optimiser
from rlinf_isaac.engines.local.training.training_state import TrainingState
from rlinf_isaac.engines.policies import load_with_heads
from rlinf_isaac.engines.resume import CHECKPOINTS
from rlinf_isaac.ground.atomic import new_directory
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.heads import initialise_heads


class States:
    """The states in the directory `output` of a job: ``training_state`` of the newest checkpoint, and ``kept_state`` of
    the one that a roll-back would choose, unless that is the newest."""

    def __init__(self, output: Path) -> None:
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

    def restore(self, iteration: int, job: RlJob, policy: FlowActorCritic) -> torch.optim.AdamW:
        """Load the weights of the checkpoint of an iteration in place (0: of the start), and return an optimiser with
        its state.

        The state is gone if a later checkpoint that looked sound has since turned out to be worse. Then, as at the
        start, the optimiser begins anew.
        """
        whole = policy.checkpoint_module()
        if not iteration:
            initialise_heads(policy.heads, policy.rl.seed)
            load_with_heads(job.start, whole)
            return make_optimiser(policy)
        bundle, optimiser = read_bundle(job.output / CHECKPOINTS / str(iteration)), make_optimiser(policy)
        found = [state for state in (self.newest, self.kept) if state.step == iteration]
        if found:
            found[0].restore(bundle, whole, optimiser)
        else:
            load_weights(bundle, whole)
        return optimiser


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # states of a full-size policy have gigabytes
    except OSError:
        shutil.copyfile(source, target)
