"""What `FastNetwork` reads that is not a weight itself: computed from weights and the times of the denoising steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlinf_isaac.pi0.fast.weights import Norm, VisionWeights, layer_norm, norms, vision_weights
from rlinf_isaac.pi0.model import Pi0, sinusoidal_embedding


class Constants(NamedTuple):
    """The terms of one denoising step that depend only on the weights and the step's time.

    Attributes:
        norms: the expert's norms.
        action_bias: (width,), bias of the first layer over actions.
    """

    norms: list[Norm]
    action_bias: Tensor


class Derived(NamedTuple):
    """Some tensors are the parameters themselves, where nothing had to be computed.

    Attributes:
        vision: the layers of the vision tower.
        post_layernorm: scale and shift of the norm behind them.
        vlm_norms: the language model's norms.
        action_weight: (width, A), weight of the first layer over actions.
        steps: one per denoising step.
    """

    vision: list[VisionWeights]
    post_layernorm: tuple[Tensor, Tensor]
    vlm_norms: list[Norm]
    action_weight: Tensor
    steps: list[Constants]


@torch.no_grad()
def derive(model: Pi0, num_steps: int) -> Derived:
    """Computes all of it for the present weights."""
    tower = model.vlm.vision_tower.vision_model
    return Derived(
        vision_weights(tower),
        layer_norm(tower.post_layernorm),
        norms(model.vlm.language_model, None)[0],
        *_steps(model, num_steps),
    )


def _steps(model: Pi0, num_steps: int) -> tuple[Tensor, list[Constants]]:
    """`Derived.action_weight` and `Derived.steps`."""
    pi05, width = model.config.pi05, model.config.expert.width
    weight, bias = model.action_in_proj.weight.detach(), model.action_in_proj.bias.detach()
    times = torch.tensor([1 - step / num_steps for step in range(num_steps)], device=weight.device)
    embedded = sinusoidal_embedding(times, width).float()
    if not pi05:
        # There is no activation between action_in_proj and the first layer of the MLP, so they are multiplied into one
        # matrix, in float64.
        of_action, of_time = model.action_time_mlp_in.weight.double().split(width, dim=1)
        biases = embedded.double() @ of_time.T + of_action @ bias.double() + model.action_time_mlp_in.bias.double()
        plain = norms(model.expert, None)[0]
        steps = [Constants(plain, row.float()) for row in biases]
        return (of_action @ weight.double()).float().contiguous(), steps
    conditions = F.silu(model.time_mlp_out(F.silu(model.time_mlp_in(embedded))))
    return weight, [Constants(step_norms, bias) for step_norms in norms(model.expert, conditions)]
