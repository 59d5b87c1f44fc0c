"""pi0's sampling on fused weights: the arithmetic of `Pi0.sample`, laid out for a GPU.

Tokens are always the rows of a matrix (batch * tokens, width). Keys and values of prefix and suffix share one cache per
layer; padded prompt tokens are masked inside the attention kernel. Terms that depend only on the weights and the time
(time embeddings, pi0.5's norms) are computed once for all denoising steps. No Python code depends on a value on the
device, so that a CUDA graph can capture the whole of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlinf_isaac.pi0.fast.attention import attention
from rlinf_isaac.pi0.fast.inputs import Inputs
from rlinf_isaac.pi0.fast.rows import geglu, residual_norm, rotate_and_keep
from rlinf_isaac.pi0.fast.skinny import linear_geglu, linear_parts, linear_qkv
from rlinf_isaac.pi0.fast.weights import Norm, gemma_weights, layer_norm, norms, vision_weights
from rlinf_isaac.pi0.gemma import ROPE_BASE, Rope
from rlinf_isaac.pi0.model import Pi0, sinusoidal_embedding
from rlinf_isaac.pi0.observation import float_images

SKINNY_ROWS = 64
"""Up to this many suffix tokens (one observation) the expert uses the GEMMs of `skinny`; with more, cuBLAS is as
fast."""


class Constants(NamedTuple):
    """The terms of one denoising step that depend only on the weights and the step's time.

    Attributes:
        norms: the expert's norms.
        action_bias: (width,), bias of the first layer over actions.
    """

    norms: list[Norm]
    action_bias: Tensor


class FastNetwork:
    """`Pi0.sample` for a model on a GPU. The weights are read by `__init__`; after they change, make a new network.

    The model's parameters become views (see `weights`).
    """

    @torch.no_grad()
    def __init__(self, model: Pi0, num_steps: int) -> None:
        self.model, self.config, self.num_steps = model, model.config, num_steps
        self.vision = vision_weights(model.vlm.vision_tower.vision_model)
        self.vlm = gemma_weights(model.vlm.language_model)
        self.vlm_norms = norms(model.vlm.language_model, None)[0]
        self.expert = gemma_weights(model.expert)
        self.post_layernorm = layer_norm(model.vlm.vision_tower.vision_model.post_layernorm)
        self.dtype = self.vlm[0].qkv.dtype
        self.action_weight, self.steps = self._constants()

    @torch.no_grad()
    def __call__(self, inputs: Inputs, padded: bool) -> Tensor:
        """Returns actions (B, H, A), float32. `padded` says whether any token of a prefix is masked."""
        with _tf32():
            return self._sample(inputs, padded)

    def _sample(self, inputs: Inputs, padded: bool) -> Tensor:
        config = self.config.expert
        batch = len(inputs.noise)
        tokens, lengths = self._prefix(inputs, padded)
        prefix, suffix = len(tokens) // batch, self.config.action_horizon + (not self.config.pi05)
        shape = (config.depth, batch, config.num_kv_heads, prefix + suffix, config.head_dim)
        keys, values = tokens.new_empty(shape), tokens.new_empty(shape)
        self._run_prefix(tokens, keys, values, lengths if padded else None, batch)

        rope = _rope(lengths[:, None] + torch.arange(suffix, device=lengths.device), config.head_dim)
        state = None if self.config.pi05 else self.model.state_proj(inputs.state.float()).to(self.dtype)[:, None]
        x = inputs.noise.float()
        for constants in self.steps:
            actions = self._action_tokens(x, constants)
            tokens = (actions if state is None else torch.cat([state, actions], 1)).reshape(batch * suffix, -1)
            output = self._expert(tokens, rope, keys, values, lengths, prefix, constants.norms)
            output = output.view(batch, suffix, -1)[:, -self.config.action_horizon :]
            x = x - self.model.action_out_proj(output.float()) / self.num_steps
        return x

    def _prefix(self, inputs: Inputs, padded: bool) -> tuple[Tensor, Tensor]:
        """Prefix tokens (B * P, width), the valid ones of an observation first, and their number (B,)."""
        tokens, valid = self.model.vlm.encode_prompt(inputs.prompt_tokens), inputs.prompt_mask
        cameras, batch = inputs.image_masks.shape
        if cameras:
            images = self._encode_images(inputs.images).view(cameras, batch, -1, tokens.shape[-1])
            masks = inputs.image_masks.T[:, :, None].expand(-1, -1, images.shape[2]).flatten(1)
            tokens, valid = torch.cat([*images, tokens], dim=1), torch.cat([masks, valid], dim=1)
        if not padded:
            return tokens.flatten(0, 1), torch.full((batch,), tokens.shape[1], device=tokens.device)
        # With the valid tokens first, one number per observation describes its mask. The order of tokens may be changed
        # because attention does not depend on it and positions count valid tokens only.
        valid_so_far, invalid_so_far = valid.cumsum(1), (~valid).cumsum(1)
        lengths = valid_so_far[:, -1].contiguous()
        places = torch.where(valid, valid_so_far, lengths[:, None] + invalid_so_far) - 1
        return torch.empty_like(tokens).scatter_(1, places[..., None].expand_as(tokens), tokens).flatten(0, 1), lengths

    def _encode_images(self, images: Tensor) -> Tensor:
        """images (N, 3, S, S), uint8 or float in [-1, 1] -> (N * patches, width of the VLM)."""
        embeddings, config = self.model.vlm.vision_tower.vision_model.embeddings, self.config.vision
        convolution, count, grid = embeddings.patch_embedding, len(images), config.image_size // config.patch_size
        # A convolution whose stride equals its kernel size is a matrix product over patches.
        patch_pixels = (
            float_images(images)
            .view(count, 3, grid, config.patch_size, grid, config.patch_size)
            .permute(0, 2, 4, 1, 3, 5)
        )
        x = F.linear(patch_pixels.reshape(count, grid**2, -1), convolution.weight.flatten(1), convolution.bias)
        x = (x + embeddings.position_embedding.weight).to(self.dtype).flatten(0, 1)
        patches, width = grid**2, config.width
        update = None
        for layer in self.vision:
            normed = residual_norm(x, *layer.norm1, update, centre=True)
            qkv = F.linear(normed, *layer.qkv).view(count, patches, 3, config.num_heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(-1, width)
            normed = residual_norm(x, *layer.norm2, F.linear(mixed, *layer.out), centre=True)
            update = F.linear(F.gelu(F.linear(normed, *layer.fc1), approximate="tanh"), *layer.fc2)
        normed = residual_norm(x, *self.post_layernorm, update, centre=True)
        return self.model.vlm.multi_modal_projector.linear(normed)

    def _run_prefix(self, x: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None, batch: int) -> None:
        """Fills the cache with the keys and values of prefix tokens x (B * P, width).

        `lengths` (B,) are the numbers of valid tokens; None if all are valid.
        """
        config, prefix = self.config.vlm, len(x) // batch
        rope = _rope(torch.arange(prefix, device=x.device).expand(batch, -1), config.head_dim)
        update = None
        for index, layer in enumerate(self.vlm):
            before, after = self.vlm_norms[2 * index : 2 * index + 2]
            normed = residual_norm(x, before.scale, None, update)
            if index + 1 == len(self.vlm):  # only keys and values: nothing reads the output of the last layer
                skipped = config.num_heads * config.head_dim
                rotate_and_keep(F.linear(normed, layer.qkv[skipped:]), *rope, keys[index], values[index], 0, heads=0)
                return
            cache = keys[index], values[index]
            queries = rotate_and_keep(F.linear(normed, layer.qkv), *rope, *cache, 0, config.num_heads)
            own_keys, own_values = (tensor[:, :, :prefix] for tensor in cache)
            if lengths is None:
                heads = queries.unflatten(0, (batch, -1)).unflatten(-1, (-1, config.head_dim)).transpose(1, 2)
                mixed = F.scaled_dot_product_attention(heads, own_keys, own_values, enable_gqa=True)
                mixed = mixed.transpose(1, 2).reshape(len(x), -1)
            else:
                mixed = attention(queries, own_keys, own_values, lengths, heads=config.num_heads, prefix=prefix)
            normed = residual_norm(x, after.scale, None, F.linear(mixed, layer.out))
            update = F.linear(geglu(F.linear(normed, layer.gate_up)), layer.down)

    def _action_tokens(self, x: Tensor, constants: Constants) -> Tensor:
        """Noisy actions (B, H, A) -> tokens (B, H, width)."""
        first = F.linear(x, self.action_weight, constants.action_bias)
        if not self.config.pi05:
            first = self.model.action_time_mlp_out(F.silu(first))
        return first.to(self.dtype)

    def _expert(
        self, x: Tensor, rope: Rope, keys: Tensor, values: Tensor, lengths: Tensor, prefix: int, norms: list[Norm]
    ) -> Tensor:
        """Runs the expert on suffix tokens x (B * T, width) behind a cached prefix. Returns the normed output."""
        heads, alone = self.config.expert.num_heads, not self.config.pi05
        skinny = len(x) <= SKINNY_ROWS
        update, gate = None, None
        for index, layer in enumerate(self.expert):
            before, after = norms[2 * index : 2 * index + 2]
            cache = keys[index], values[index]
            normed = residual_norm(x, before.scale, before.shift, update, gate)
            if skinny:
                queries = linear_qkv(normed, layer.qkv, *rope, *cache, heads=heads, offset=prefix)
            else:
                queries = rotate_and_keep(F.linear(normed, layer.qkv), *rope, *cache, prefix, heads)
            mixed = attention(queries, *cache, lengths, heads=heads, prefix=prefix, state_alone=alone)
            out = linear_parts(mixed, layer.out) if skinny else F.linear(mixed, layer.out)
            normed = residual_norm(x, after.scale, after.shift, out, before.gate)
            if skinny:
                update = linear_parts(linear_geglu(normed, layer.gate_up), layer.down)
            else:
                update = F.linear(geglu(F.linear(normed, layer.gate_up)), layer.down)
            gate = after.gate
        return residual_norm(x, norms[-1].scale, norms[-1].shift, update, gate)

    def _constants(self) -> tuple[Tensor, list[Constants]]:
        """The weight (width, A) of the first layer over actions, and the constants of every step."""
        model, width = self.model, self.config.expert.width
        weight, bias = model.action_in_proj.weight, model.action_in_proj.bias
        times = torch.tensor([1 - step / self.num_steps for step in range(self.num_steps)], device=weight.device)
        embedded = sinusoidal_embedding(times, width).float()
        plain = norms(model.expert, None)[0] if not self.config.pi05 else []
        if not self.config.pi05:
            # There is no activation between action_in_proj and the first layer of the MLP, so they are multiplied into
            # one matrix, in float64.
            of_action, of_time = model.action_time_mlp_in.weight.double().split(width, dim=1)
            biases = embedded.double() @ of_time.T + of_action @ bias.double() + model.action_time_mlp_in.bias.double()
            steps = [Constants(plain, row.float()) for row in biases]
            return (of_action @ weight.double()).float().contiguous(), steps
        conditions = F.silu(model.time_mlp_out(F.silu(model.time_mlp_in(embedded))))
        return weight, [Constants(step_norms, bias) for step_norms in norms(model.expert, conditions)]


def _rope(positions: Tensor, head_dim: int) -> Rope:
    """Cosines and sines, each (B * T, head_dim / 2) float32, of `positions` (B, T)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.reshape(-1, 1).float() * (1.0 / ROPE_BASE**exponents)
    return Rope(angles.cos(), angles.sin())


@contextmanager
def _tf32() -> Iterator[None]:
    """Allows TF32 for the few float32 products, as OpenPI does; the bfloat16 products beside them round more."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
