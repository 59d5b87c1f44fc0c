"""What a training run needs besides its bundles to go on after a kill: the optimiser's state and the metrics so far."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.engines.local.training.optimiser import trained_copy
from rlinf_isaac.engines.local.training.team import shard_as
from rlinf_isaac.ground import lines
from rlinf_isaac.ground.atomic import new_directory
from rlinf_isaac.ground.events import Metrics

AVERAGE = "average."


class TrainingState:
    """AdamW's moments and master weights at the last checkpoint, in ``directory``; replaced atomically at every save.

    Only the newest is kept: a bundle holds the weights, this holds what a bundle should not carry around.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def step(self) -> int:
        """Step of the saved state, 0 when there is none."""
        path = self.directory / "state.json"
        return int(json.loads(path.read_text())["step"]) if path.exists() else 0

    def save(self, step: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write `optimiser_tensors`."""
        with new_directory(self.directory, replace=True) as temporary:
            save_file(dict(tensors), temporary / "optimizer.safetensors")
            (temporary / "state.json").write_text(json.dumps({"step": step}))

    def restore(self, bundle: Bundle, model: torch.nn.Module, optimiser: torch.optim.AdamW) -> None:
        """Load the bundle's weights and this state's moments into `model` and `optimiser`."""
        load_weights(bundle, model)
        self.restore_optimiser(bundle.step, model, optimiser)

    def restore_optimiser(
        self, step: int, model: torch.nn.Module, optimiser: torch.optim.AdamW
    ) -> dict[str, torch.Tensor]:
        """Load this state's moments, and float32 copies, into `optimiser`; `model` has the weights of `step`, but for
        those that the bundle does not hold as they are (`trained_tensors`), which are loaded, too.

        Returns:
            Averages of weights by name, if there are some.
        """
        tensors = load_file(self.directory / "optimizer.safetensors")
        for name, parameter in model.named_parameters():
            trained = trained_copy(optimiser, parameter)
            if trained is not parameter:
                trained.data.copy_(shard_as(tensors[f"master.{name}"], trained))
                parameter.data.copy_(trained.data)  # what a bundle holds may be an average
            elif f"raw.{name}" in tensors:
                parameter.data.copy_(shard_as(tensors[f"raw.{name}"], parameter))
            if f"exp_avg.{name}" in tensors:
                optimiser.state[trained] = {
                    # States of earlier releases hold no counts: there, every parameter trained in every step.
                    "step": tensors.get(f"step.{name}", torch.tensor(float(step))).to(parameter.device),
                    "exp_avg": shard_as(tensors[f"exp_avg.{name}"], parameter),
                    "exp_avg_sq": shard_as(tensors[f"exp_avg_sq.{name}"], parameter),
                }
        return {name.removeprefix(AVERAGE): tensor for name, tensor in tensors.items() if name.startswith(AVERAGE)}


def optimiser_tensors(model: torch.nn.Module, optimiser: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    """The moments of every parameter that has some, and the float32 copies of bfloat16 parameters, by name."""
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
    """What a bundle of averages, or with adapters merged into it, does not say: the parameters that train, as far as
    `optimiser_tensors` has no copies of them, and the averages."""
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    raw = {f"raw.{name}": each.detach() for name, each in trained if trained_copy(optimiser, each) is each}
    return raw | {f"{AVERAGE}{name}": tensor for name, tensor in averages.items()}


class MetricsLog:
    """Durable record of the metrics of a training run, one JSON line per logging step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, metrics: Metrics) -> None:
        """Add an entry; it is on disk when this returns."""
        entry = {"step": metrics.step, "time": metrics.time, "values": dict(metrics.values)}
        lines.append(self.path, json.dumps(entry))

    def entries(self) -> list[Metrics]:
        """Everything that was added, in this order."""
        return [_parse(line) for line in lines.read(self.path)]

    def rewind(self, step: int) -> Iterator[Metrics]:
        """Forget entries after `step` (their steps are about to be repeated) and yield the others again."""
        yield from map(_parse, lines.rewind(self.path, lambda line: _parse(line).step <= step))


def _parse(line: str) -> Metrics:
    return Metrics(**json.loads(line))
