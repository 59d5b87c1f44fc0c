"""SigLIP vision tower with the parameter names of Hugging Face's ``SiglipVisionModel`` (no pooling head)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rlinf_isaac.config.schema import VisionConfig
from rlinf_isaac.pi0.checkpointing import run_layer

NORM_EPSILON = 1e-6


class Embeddings(nn.Module):
    """Patches of the image as tokens, plus a learned position embedding."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.position_embedding = nn.Embedding((config.image_size // config.patch_size) ** 2, config.width)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, S, S) in [-1, 1] -> tokens (B, patches, width), patches in row-major order."""
        patches = self.patch_embedding(images.to(self.patch_embedding.weight.dtype))
        return patches.flatten(2).transpose(1, 2) + self.position_embedding.weight


class VisionAttention(nn.Module):
    """Full multi-head attention with biases."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T, width) -> the same shape."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        queries, keys, values = (project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in projections)
        return self.out_proj(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Feed-forward block, tanh approximation of GELU.

    Attributes:
        recompute: in compiled layers, compute the GELU again in the backward pass instead of keeping its output.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.recompute = False
        self.fc1 = nn.Linear(config.width, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T, width) -> the same shape."""
        return self.fc2(run_layer(_gelu, self.fc1(x), checkpointing=self.recompute))


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, NORM_EPSILON)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, NORM_EPSILON)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T, width) -> the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """The transformer layers; the module exists for their names in the state dict."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.checkpointing = False
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.depth))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, T, width) -> the same shape."""
        for layer in self.layers:
            x = run_layer(layer, x, checkpointing=self.checkpointing)
        return x


class VisionTransformer(nn.Module):
    """Patch embedding, layers and a final norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, NORM_EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, S, S) in [-1, 1] -> patch features (B, (S / patch)^2, width), in row-major order."""
        # The patch embedding may be kept in float32 while the layers are bfloat16, as OpenPI does.
        tokens = self.embeddings(images).to(self.post_layernorm.weight.dtype)
        return self.post_layernorm(self.encoder(tokens))


class VisionTower(nn.Module):
    """Holds a `VisionTransformer` as ``vision_model``, because its names in the state dict begin so."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vision_model = VisionTransformer(config)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, S, S) in [-1, 1] -> patch features (B, (S / patch)^2, width), in row-major order."""
        return self.vision_model(images)
