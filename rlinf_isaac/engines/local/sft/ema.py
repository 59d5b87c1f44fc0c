"""An exponential moving average of the weights that train, beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rlinf_isaac.engines.local.training.optimiser import trained_copy
from rlinf_isaac.engines.local.training.team import own_part, shard_as


class Average:
    """``average = decay * average + (1 - decay) * weights`` after every step, in float32, from the first weights on.

    As OpenPI's JAX training (``scripts/train.py``): no correction of the beginning. What is averaged is what the
    optimiser trains: float32 copies of bfloat16 parameters where there are some. Frozen parameters have no average, and
    with a `decay` of 0 nothing has. It costs 4 bytes per trained parameter.

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
        """Take in the weights of one more step."""
        if self.values:
            averages = [own_part(value) for value in self.values.values()]
            weights = [own_part(trained.detach()).float() for trained in self._trained.values()]
            torch._foreach_lerp_(averages, weights, 1 - self._decay)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Within it `model`, of which this is the average, has the average as its weights."""
        parameters = dict(model.named_parameters())
        own = [own_part(parameters[name].detach()) for name in self.values]
        kept = [each.clone() for each in own]
        _copy(own, [own_part(value) for value in self.values.values()])
        try:
            yield
        finally:
            _copy(own, kept)
            # What FSDP2 gathered of the average is not to be taken for the weights in the next forward pass.
            for module in model.modules():
                if hasattr(module, "reshard"):
                    module.reshard()  # type: ignore[operator]  # of FSDP2

    @torch.no_grad()
    def restore(self, values: dict[str, Tensor]) -> None:
        """Go on from whole averages, by name."""
        for name, own in self.values.items():
            own.copy_(shard_as(values[name], own))


def _copy(targets: list[Tensor], values: list[Tensor]) -> None:
    if targets:  # torch has no copy of nothing
        with torch.no_grad():
            torch._foreach_copy_(targets, values)
