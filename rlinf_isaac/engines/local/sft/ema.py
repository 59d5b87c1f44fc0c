"""Exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rlinf_isaac.engines.local.training.optimiser import trained_copy
from rlinf_isaac.engines.local.training.team import own_part, shard_as


class Average:
    """``average = decay * average + (1 - decay) * weights`` after every step, in float32, starting with the initial
    weights.

    As in OpenPI's JAX training (``scripts/train.py``), there is no bias correction. The averaged values are those that
    the optimiser trains; for a bfloat16 parameter with a float32 copy, the copy. Frozen parameters have no average, and
    with `decay` 0 no parameter has one. It takes 4 bytes per trained parameter.

    Attributes:
        values: name of a parameter -> its average, float32, sharded like the parameter.
    """

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, decay: float) -> None:
        self._decay = decay
        self._trained = {
            name: trained_copy(optimiser, parameter)
            for name, parameter in model.named_parameters()
            if decay and parameter.requires_grad
        }
        self.values = {name: trained.detach().float().clone() for name, trained in self._trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current weights; called after every optimiser step."""
        if self.values:
            averages = [own_part(value) for value in self.values.values()]
            weights = [own_part(trained.detach()).float() for trained in self._trained.values()]
            torch._foreach_lerp_(averages, weights, 1 - self._decay)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Replace the weights of `model` by their average inside the with block."""
        parameters = dict(model.named_parameters())
        own = [own_part(parameters[name].detach()) for name in self.values]
        kept = [each.clone() for each in own]
        _copy(own, [own_part(value) for value in self.values.values()])
        try:
            yield
        finally:
            _copy(own, kept)
            # Drop the parameters that FSDP2 has all-gathered from the average, so that the next forward pass does not
            # use them.
            for module in model.modules():
                if hasattr(module, "reshard"):
                    module.reshard()  # type: ignore[operator]  # of FSDP2

    @torch.no_grad()
    def restore(self, values: dict[str, Tensor]) -> None:
        """Set the averages from unsharded tensors, by name."""
        for name, own in self.values.items():
            own.copy_(shard_as(values[name], own))


def _copy(targets: list[Tensor], values: list[Tensor]) -> None:
    if targets:  # torch._foreach_copy_ refuses empty lists
        with torch.no_grad():
            torch._foreach_copy_(targets, values)
