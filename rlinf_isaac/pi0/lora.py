"""Low-rank adapters of pi0's two transformers (LoRA, arXiv 2106.09685): W x + (alpha / rank) B A x, W frozen.

They are implemented here instead of using `peft`, whose wrappers rename the layers they wrap
(``q_proj.base_layer.weight``): the code that reads state dicts, FSDP's units, `torch.compile` of the layers and the
bundles all use OpenPI's names. Here a layer keeps its ``weight`` and gets ``lora_A`` and ``lora_B`` beside it.

As in OpenPI's ``models/lora.py``, attention and feed-forward of both Gemmas have adapters, A is drawn from N(0, 0.01),
adapters are stored in float32 and compute in the dtype of their input, and there is no dropout and no rank
stabilisation. There are two differences. OpenPI draws B like A, so that its model starts about 4e-4 away from the base
in every weight; here B starts at zero, as in the paper, and the model starts equal to the base. OpenPI has a pair for
each attention head of q and o; here each matrix has one pair, as in `peft`, whose file format allows no other.

The weights of a checkpoint have the adapters merged in. Where the model is bfloat16, so are the merged weights, and a
change smaller than 1/512 of a weight is rounded away; the adapters saved beside the checkpoint are exact.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.trainable import adapted_layers

INITIAL_STD = 0.01
A, B = "lora_A", "lora_B"


class LoraLinear(nn.Linear):
    """A linear layer without bias that shares the weight (O, I) of `base`, with an adapter A (rank, I), B (O, rank)."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        nn.Module.__init__(self)  # nn.Linear's own __init__ would allocate a weight
        self.in_features, self.out_features, self.scale = base.in_features, base.out_features, alpha / rank
        self.weight = base.weight
        self.register_parameter("bias", None)
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, device=device))
        self.lora_B = nn.Parameter(torch.empty(self.out_features, rank, device=device))
        self.reset(generator)

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw the adapter, in place; it has no effect."""
        # Drawn on the CPU, so that the values do not depend on the device on which the model trains.
        self.lora_A.copy_(INITIAL_STD * torch.randn(self.lora_A.shape, generator=generator))
        self.lora_B.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O), in the dtype of x."""
        change = F.linear(F.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype))
        return F.linear(x, self.weight) + self.scale * change


def add_adapters(model: Pi0, config: JobConfig) -> Pi0:
    """Adds float32 adapters to the transformers of `model`, in place. They start without effect.

    The state dict keeps its names and values; the adapters are added to it.
    """
    generator = torch.Generator().manual_seed(config.sft.seed)
    for name, rank, alpha in adapted_layers(config):
        parent, _, child = name.rpartition(".")
        base = model.get_submodule(name)
        assert isinstance(base, nn.Linear)
        setattr(model.get_submodule(parent), child, LoraLinear(base, rank, alpha, generator))
    return model


def reset_adapters(model: Pi0, seed: int) -> None:
    """Draws the adapters of `model` again, in place, as `add_adapters` does with ``sft.seed``."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.reset(generator)


def scales(model: nn.Module) -> dict[str, float]:
    """Name of every layer with an adapter -> alpha / rank."""
    return {name: module.scale for name, module in model.named_modules() if isinstance(module, LoraLinear)}


@torch.no_grad()
def merged(weights: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """A state dict without adapters whose model computes the same as the one with adapters, up to rounding.

    Weight and adapter are added in float32 and the sum is rounded to the dtype of the weight. Sums are moved to the
    CPU, so that a GPU holds only one of them at a time.

    Args:
        weights: a state dict with adapters.
        scales: name of each layer with an adapter -> alpha / rank.
    """
    whole = {name: weight for name, weight in weights.items() if not is_adapter(name)}
    for layer, scale in scales.items():
        weight = weights[f"{layer}.weight"]
        change = scale * (weights[f"{layer}.{B}"].float() @ weights[f"{layer}.{A}"].float())
        whole[f"{layer}.weight"] = (weight.float() + change.to(weight.device)).to(weight.dtype).cpu()
    return whole


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return name.endswith((f".{A}", f".{B}"))
