"""AdamW for bfloat16 parameters, and clipping that costs nothing while gradients are small."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from rlinf_isaac.engines.local.team import is_sharded, own_part, shard_as, whole


class MasterAdamW(torch.optim.AdamW):
    """AdamW that trains float32 copies of bfloat16 parameters, and rounds them to the parameters after every step.

    bfloat16 has 8 bits of mantissa: of an update below a 256th of a weight, nothing would be left. Parameters in
    float32 are trained themselves, so that for a float32 model this is `torch.optim.AdamW`.

    Args:
        parameters: by name.
        exact: name -> the float32 values (whole, where the parameter is sharded) that a bfloat16 parameter was rounded
            from: a copy of the rounded ones would begin without 16 bits of the mantissa. The copy takes their memory.
        options: of `torch.optim.AdamW`.

    Attributes:
        masters: parameter -> what is trained for it; the keys of `state`.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], exact: Mapping[str, Tensor], **options: Any
    ) -> None:
        self.masters = {
            parameter: parameter if parameter.dtype == torch.float32 else nn.Parameter(shard_as(exact[name], parameter))
            for name, parameter in parameters
        }
        self._parameters = {trained: parameter for parameter, trained in self.masters.items()}
        super().__init__(by_kind(self.masters.values()), **options)

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

    @torch.no_grad()
    def clipped_step(self, norm: Tensor, most: float) -> None:
        """One step from gradients whose norm is `norm`, scaled to at most `most`.

        On a GPU nothing waits for the norm, and where that is not finite nothing is changed; who asks for the norm
        afterwards knows. Elsewhere it has to be finite.
        """
        if not (norm.is_cuda and has_kernel()):
            clip_gradients(self.masters, norm, most)
            self.step()
            return
        from rlinf_isaac.engines.local.adamw_kernel import adamw_step

        factor = torch.where(norm.isfinite(), _factor(norm, most), torch.nan).float()
        for group in self.param_groups:
            options = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
            for trained in group["params"]:
                parameter = self._parameters[trained]
                if parameter.grad is None:
                    continue
                state = self.state[trained]
                if not state:
                    state |= {"step": torch.zeros(())} | {
                        moment: torch.zeros_like(trained) for moment in ("exp_avg", "exp_avg_sq")
                    }
                state["step"] = state["step"].cpu() + 1  # on the CPU: reading it waits for nothing
                adamw_step(
                    own_part(parameter),
                    own_part(trained),
                    own_part(parameter.grad),
                    own_part(state["exp_avg"]),
                    own_part(state["exp_avg_sq"]),
                    factor,
                    step=int(state["step"]),
                    **options,
                )
                if parameter is not trained:
                    parameter.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters."""
        for parameter in self.masters:
            parameter.grad = None


def by_kind(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Parameter groups: the sharded ones and the whole ones, which one fused step of an optimiser cannot mix."""
    groups: dict[bool, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(is_sharded(parameter), []).append(parameter)
    return [{"params": group} for group in groups.values()]


def trained_copy(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> nn.Parameter:
    """What `optimiser` trains for a parameter: itself, or a float32 copy. The key of its state."""
    return optimiser.masters.get(parameter, parameter) if isinstance(optimiser, MasterAdamW) else parameter


@torch.no_grad()
def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, of all shards where they are sharded; on their device."""
    groups = by_kind(parameter for parameter in parameters if parameter.grad is not None)
    norms = [whole(torch.nn.utils.get_total_norm([each.grad for each in group["params"]])) for group in groups]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, most: float) -> None:
    """Scales the gradients, whose norm is `norm`, to at most `most`; the same bits as ``clip_grad_norm_``.

    Waits for the norm. Where it is small the gradients, gigabytes of a large model, are not touched.
    """
    factor = float(_factor(norm, most))
    gradients = [own_part(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if factor < 1.0:
        torch._foreach_mul_(gradients, factor)


@cache
def has_kernel() -> bool:
    """Whether Triton is there, which CUDA builds of torch bring along."""
    return find_spec("triton") is not None


def _factor(norm: Tensor, most: float) -> Tensor:
    return torch.clamp(most / (norm + 1e-6), max=1.0)
