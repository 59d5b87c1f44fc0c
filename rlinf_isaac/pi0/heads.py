"""The heads that reinforcement learning adds to pi0: a value head, and for flow-noise a head that predicts standard
deviations.

Only the verb `rl` trains them. In a bundle their names begin with ``value_head.`` and ``noise_head.``
(`layout.OPTIONAL_PREFIXES`); code that only runs the policy does not load them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """MLP from a mean token (B, width) to a value (B,). Widths 512, 256, 128 with ReLU are RLinf's."""

    def __init__(self, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.mlp = _mlp(width, hidden, 1, nn.ReLU)

    def forward(self, token: Tensor) -> Tensor:
        """Returns the value (B,) float32. The token is detached, so the value loss does not train the policy."""
        return self.mlp(token.detach().float()).squeeze(-1)


class NoiseHead(nn.Module):
    """Predicts the standard deviation of a denoising step from the expert's action tokens.

    With y the MLP's output, log variance = low + (high - low) (tanh(y) + 1) / 2, low = log minimum^2 and
    high = log maximum^2 (pi_RL arXiv 2510.25889, flow-noise; bounds 0.08 and 0.16 in RLinf).
    """

    def __init__(self, width: int, action_dim: int, minimum: float, maximum: float) -> None:
        super().__init__()
        self.low, self.high = 2 * math.log(minimum), 2 * math.log(maximum)
        self.mlp = _mlp(width, (width,), action_dim, nn.Tanh)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, H, width) -> standard deviations (B, H, action_dim) float32."""
        squashed = (torch.tanh(self.mlp(tokens.float())) + 1) / 2
        return torch.exp(0.5 * (self.low + (self.high - self.low) * squashed))


def initialise_heads(module: nn.Module, seed: int) -> None:
    """Initialises the heads from `seed`.

    Hidden layers have torch's default initialisation. Last layers are 100 times smaller, so that a new value head
    predicts almost 0 and a new noise head the geometric middle of its range.
    """
    generator = torch.Generator().manual_seed(seed)
    for head in (child for child in module.modules() if isinstance(child, ValueHead | NoiseHead)):
        for layer in (layer for layer in head.mlp if isinstance(layer, nn.Linear)):
            bound = 1 / math.sqrt(layer.in_features)
            scale = 0.01 if layer is head.mlp[-1] else 1.0
            with torch.no_grad():
                for parameter in (layer.weight, layer.bias):
                    drawn = torch.rand(parameter.shape, generator=generator) * 2 - 1
                    parameter.copy_(scale * bound * drawn)


def _mlp(width: int, hidden: Sequence[int], outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), activation()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, outputs))
