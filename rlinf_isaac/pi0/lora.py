"""Low-rank adapters of pi0's two transformers (LoRA, arXiv 2106.09685): W x + (alpha / rank) B A x, W frozen.

They are written here, in the few lines that they take, and not taken from `peft`: its wrappers rename what they wrap
(``q_proj.base_layer.weight``), and every reader of a state dict here, FSDP's units, `torch.compile` of the layers and
the bundles go by OpenPI's names. Here a layer keeps its ``weight``, and has ``lora_A`` and ``lora_B`` beside it.

As OpenPI's ``models/lora.py``: attention and feed-forward of both Gemmas, A from N(0, 0.01), adapters in float32 that
compute in the format of their input, no dropout, no rank stabilisation. Two differences: OpenPI draws B like A, so that
its model begins about 4e-4 away from the base in every weight, while here B begins with zeros, as in the paper, and the
model as the base; and OpenPI has a pair for each attention head of q and o, while here each matrix has one, as in
`peft`, whose format of files can say no other.

A checkpoint has the adapters merged into its weights. Those are bfloat16 where the model is, so what is smaller than a
512th of a weight is rounded to it there; the adapters that lie beside the checkpoint are exact.
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
    """A linear layer without bias whose weight (O, I) is another's, with an adapter A (rank, I), B (O, rank)."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        nn.Module.__init__(self)  # that of Linear would make a weight
        self.in_features, self.out_features, self.scale = base.in_features, base.out_features, alpha / rank
        self.weight = base.weight
        self.register_parameter("bias", None)
        device = base.weight.device
        # Drawn on the CPU: the same wherever the model trains.
        self.lora_A = nn.Parameter((INITIAL_STD * torch.randn(rank, self.in_features, generator=generator)).to(device))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O), in the format of x."""
        change = F.linear(F.linear(x, self.lora_A.to(x.dtype)), self.lora_B.to(x.dtype))
        return F.linear(x, self.weight) + self.scale * change


def add_adapters(model: Pi0, config: JobConfig) -> Pi0:
    """Give the transformers of `model` adapters, in place. Float32; they begin without effect.

    Names and values of the state dict stay, and adapters come to it.
    """
    generator = torch.Generator().manual_seed(config.sft.seed)
    for name, rank, alpha in adapted_layers(config):
        parent, _, child = name.rpartition(".")
        base = model.get_submodule(name)
        assert isinstance(base, nn.Linear)
        setattr(model.get_submodule(parent), child, LoraLinear(base, rank, alpha, generator))
    return model


def scales(model: nn.Module) -> dict[str, float]:
    """Name of every layer with an adapter -> alpha / rank."""
    return {name: module.scale for name, module in model.named_modules() if isinstance(module, LoraLinear)}


@torch.no_grad()
def merged(weights: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """A state dict without adapters, of a model that computes the same up to rounding.

    The sum of weight and adapter is made in float32 and rounded to the format of the weight. New values are on the CPU,
    so that a GPU has to hold one of them at a time.

    Args:
        weights: a state dict with adapters.
        scales: of the layers that have them.
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
