"""AdamW for bfloat16 parameters with float32 copies, and gradient clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlinf_isaac.engines.local.training.team import is_sharded, own_part, shard_as, summed, whole

if TYPE_CHECKING:
    from rlinf_isaac.engines.local.training.adamw_kernel import Kernels  # imports Triton

_MOMENTS = ("exp_avg", "exp_avg_sq")


class MasterAdamW(torch.optim.AdamW):
    """AdamW that trains float32 copies of bfloat16 parameters, and rounds them to the parameters after every step.

    bfloat16 has 8 bits of mantissa, so an update smaller than 1/256 of the weight would be rounded away. Float32
    parameters are trained directly, so for a float32 model this equals `torch.optim.AdamW`.

    Args:
        parameters: pairs of name and parameter.
        exact: name -> float32 values (unsharded) from which a bfloat16 parameter was rounded. The copies start from
            them, because copies of the rounded values would lack 16 bits of the mantissa. Their memory is reused.
        options: options of `torch.optim.AdamW`.

    Attributes:
        masters: parameter -> tensor that is trained for it; these tensors are the keys of `state`.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], exact: Mapping[str, Tensor], **options: Any
    ) -> None:
        self.masters = {
            parameter: parameter if parameter.dtype == torch.float32 else nn.Parameter(shard_as(exact[name], parameter))
            for name, parameter in parameters
        }
        self._due: list[int] = []
        self._groups: list[tuple[Kernels, list[int], bool]] = []
        super().__init__(by_kind(self.masters.values()), **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients of the parameters; the gradients of bfloat16 parameters are freed."""
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

    @property
    def has_kernels(self) -> bool:
        """Whether `clipped_step` can be used: it needs a GPU and Triton, which the CUDA builds of torch include."""
        return next(iter(self.masters)).is_cuda and find_spec("triton") is not None

    @torch.no_grad()
    def clipped_step(self, most: float, sound: Tensor) -> Tensor:
        """Take one step with the gradients of the parameters, scaled so that their norm is at most `most`.

        This call does not wait for the device. If the norm or the scalar `sound` is not finite, nothing is changed.

        Returns:
            the norm before scaling, a float32 scalar on the device.
        """
        due, gradients = [], []
        for parameter, trained in self.masters.items():
            if parameter.grad is not None:
                due.append((parameter, trained))
                gradients.append(own_part(parameter.grad).contiguous())
        groups = self._grouped(due)
        squares = torch.zeros((), dtype=torch.float64, device=sound.device)
        for kernels, members, sharded in groups:
            kernels.find([gradients[member] for member in members])
            total = kernels.squared_norm()
            squares += summed(total, due[members[0]][0]) if sharded else total
        norm = squares.sqrt().float()
        factor = torch.where(norm.isfinite() & sound.isfinite(), _factor(norm, most), torch.nan)
        options = {name: self.param_groups[0][name] for name in ("lr", "betas", "eps", "weight_decay")}
        for kernels, members, _ in groups:
            states = [self.state[due[member][1]] for member in members]
            for state in states:
                state["step"] = state["step"].cpu() + 1  # on the CPU, where reading it does not wait for the device
            kernels.step([int(state["step"]) for state in states], factor, **options)
        for parameter, trained in due:
            if parameter is not trained:
                parameter.grad = None
        return norm

    def _grouped(self, due: list[tuple[nn.Parameter, nn.Parameter]]) -> list[tuple[Kernels, list[int], bool]]:
        """For each kind of parameter: the kernels, the parameters' indices in `due`, and whether they are sharded.

        The kernels contain addresses, so they are rebuilt if other parameters have gradients than in the previous step.
        Usually this happens only in the first step.
        """
        names = [id(parameter) for parameter, _ in due]
        if names == self._due:
            return self._groups
        from rlinf_isaac.engines.local.training.adamw_kernel import Kernels, Trained

        kinds: dict[tuple[bool, bool], list[int]] = {}
        for number, (parameter, trained) in enumerate(due):
            kinds.setdefault((parameter is trained, is_sharded(parameter)), []).append(number)
            if not self.state[trained]:
                moments = {name: torch.zeros_like(trained) for name in _MOMENTS}
                self.state[trained] |= {"step": torch.zeros(()), **moments}
        self._due, self._groups = names, []
        for (_, sharded), members in kinds.items():
            tensors = [
                Trained(*map(own_part, (*due[member], *(self.state[due[member][1]][m] for m in _MOMENTS))))
                for member in members
            ]
            self._groups.append((Kernels(tensors), members, sharded))
        return self._groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.masters:
            parameter.grad = None


def by_kind(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Two parameter groups, sharded and unsharded parameters, because a fused optimiser step cannot mix them."""
    groups: dict[bool, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(is_sharded(parameter), []).append(parameter)
    return [{"params": group} for group in groups.values()]


def trained_copy(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> nn.Parameter:
    """The tensor that `optimiser` trains for a parameter, and key of its state: the parameter or its float32 copy."""
    return optimiser.masters.get(parameter, parameter) if isinstance(optimiser, MasterAdamW) else parameter


@torch.no_grad()
def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, over all shards; on their device. Collective call for sharded gradients."""
    groups = by_kind(parameter for parameter in parameters if parameter.grad is not None)
    norms = [whole(torch.nn.utils.get_total_norm([each.grad for each in group["params"]])) for group in groups]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, most: float) -> None:
    """Scale the gradients, whose norm is `norm`, to a norm of at most `most`; bitwise equal to ``clip_grad_norm_``.

    Waits for the norm. If it is small enough, the gradients (gigabytes for a large model) are not read at all.
    """
    factor = float(_factor(norm, most))
    gradients = [own_part(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if factor < 1.0:
        torch._foreach_mul_(gradients, factor)


def _factor(norm: Tensor, most: float) -> Tensor:
    return torch.clamp(most / (norm + 1e-6), max=1.0)
