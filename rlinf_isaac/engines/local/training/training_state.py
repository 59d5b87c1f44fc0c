"""What a training run needs besides its bundles to go on after a kill: the optimiser's state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rlinf_isaac.engines.local.training.optimiser import trained_copy
from rlinf_isaac.engines.local.training.team import shard_as
from rlinf_isaac.ground.atomic import new_directory

AVERAGE = "average."


class TrainingState:
    """AdamW's moments and float32 copies at the last checkpoint, in `directory`.

    Every save replaces the previous state atomically. The weights themselves are in the bundles.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def step(self) -> int:
        """Step of the saved state; 0 if there is none."""
        path = self.directory / "state.json"
        return int(json.loads(path.read_text())["step"]) if path.exists() else 0

    def save(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write the state of a step; `tensors` come from `optimiser_tensors` and `trained_tensors`."""
        with new_directory(self.directory, replace=True) as temporary:
            save_file(dict(tensors), temporary / "optimizer.safetensors")
            (temporary / "state.json").write_text(json.dumps({"step": step}))

    def restore_optimiser(
        self, step: int, model: torch.nn.Module, optimiser: torch.optim.AdamW
    ) -> dict[str, torch.Tensor]:
        """Load this state's moments and float32 copies into `optimiser`.

        `model` must have the weights of the bundle of `step`. Trained weights that the bundle does not contain exactly
        (`trained_tensors`) are loaded as well.

        Returns:
            name -> moving average of the weights; empty without an average.
        """
        tensors = load_file(self.directory / "optimizer.safetensors")
        for name, parameter in model.named_parameters():
            trained = trained_copy(optimiser, parameter)
            if trained is not parameter:
                trained.data.copy_(shard_as(tensors[f"master.{name}"], trained))
                parameter.data.copy_(trained.data)  # because the bundle may contain the average
            elif f"raw.{name}" in tensors:
                parameter.data.copy_(shard_as(tensors[f"raw.{name}"], parameter))
            if f"exp_avg.{name}" in tensors:
                optimiser.state[trained] = {
                    # States of earlier releases have no step counts; there every parameter was trained in every step.
                    "step": tensors.get(f"step.{name}", torch.tensor(float(step))).to(parameter.device),
                    "exp_avg": shard_as(tensors[f"exp_avg.{name}"], parameter),
                    "exp_avg_sq": shard_as(tensors[f"exp_avg_sq.{name}"], parameter),
                }
        return {name.removeprefix(AVERAGE): tensor for name, tensor in tensors.items() if name.startswith(AVERAGE)}


def optimiser_tensors(model: torch.nn.Module, optimiser: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    """Tensors of the optimiser by name: moments and step counts, and the float32 copies of bfloat16 parameters."""
    tensors = {}
    for name, parameter in model.named_parameters():
        trained = trained_copy(optimiser, parameter)
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            if moment in optimiser.state.get(trained, {}):
                tensors[f"{moment}.{name}"] = optimiser.state[trained][moment]
        if trained is not parameter:
            tensors[f"master.{name}"] = trained.detach()
    return tensors


def trained_tensors(
    model: torch.nn.Module, optimiser: torch.optim.AdamW, averages: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Tensors that are missing in a bundle with averaged weights or merged adapters: the trained parameters (unless
    `optimiser_tensors` has their float32 copies), and the averages."""
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    raw = {f"raw.{name}": each.detach() for name, each in trained if trained_copy(optimiser, each) is each}
    return raw | {f"{AVERAGE}{name}": tensor for name, tensor in averages.items()}
