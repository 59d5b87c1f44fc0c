"""AdamW for bfloat16 parameters, and clipping that costs nothing while gradients are small."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rlinf_isaac.engines.local.team import own_part, whole


class MasterAdamW(torch.optim.AdamW):
    """AdamW that trains float32 copies of bfloat16 parameters, and rounds them to the parameters after every step.

    bfloat16 has 8 bits of mantissa: of an update below a 256th of a weight, nothing would be left. Parameters in
    float32 are trained themselves, so that for a float32 model this is `torch.optim.AdamW`.

    Attributes:
        masters: parameter -> what is trained for it; the keys of `state`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], **options: Any) -> None:
        self.masters = {
            parameter: nn.Parameter(parameter.detach().float()) if parameter.dtype == torch.bfloat16 else parameter
            for parameter in parameters
        }
        super().__init__(self.masters.values(), **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients of the parameters. Those of bfloat16 parameters are used up."""
        if closure is not None:
            raise ValueError("a closure would see the parameters before they are rounded")
        rounded = [(parameter, master) for parameter, master in self.masters.items() if parameter is not master]
        for parameter, master in rounded:
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        super().step()
        if rounded:
            torch._foreach_copy_([own_part(parameter) for parameter, _ in rounded], [own_part(m) for _, m in rounded])
        for _, master in rounded:
            master.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters."""
        for parameter in self.masters:
            parameter.grad = None


def trained_copy(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> nn.Parameter:
    """What `optimiser` trains for a parameter: itself, or a float32 copy. The key of its state."""
    return optimiser.masters[parameter] if isinstance(optimiser, MasterAdamW) else parameter


@torch.no_grad()
def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, of all shards where they are sharded; on their device."""
    return whole(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, most: float) -> None:
    """Scales the gradients, whose norm is `norm`, to at most `most`; the same bits as ``clip_grad_norm_``.

    Waits for the norm. Where it is small the gradients, gigabytes of a large model, are not touched.
    """
    factor = float(torch.clamp(most / (norm + 1e-6), max=1.0))
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if factor < 1.0:
        torch._foreach_mul_(gradients, factor)
