"""pi0's sampling on fused weights: the arithmetic of `Pi0.sample`, laid out for a GPU.

Tokens are always the rows of a matrix (batch * tokens, width). Keys and values of prefix and suffix share one cache per
layer; padded prompt tokens are masked inside the attention kernel. Terms that depend only on the weights and the time
(time embeddings, pi0.5's norms) are computed once for all calls (`derived`). No Python code depends on a value on the
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
from rlinf_isaac.pi0.fast.derived import Constants, derive
from rlinf_isaac.pi0.fast.inputs import Inputs
from rlinf_isaac.pi0.fast.rows import geglu, residual_norm, rotate_and_keep
from rlinf_isaac.pi0.fast.skinny import linear_geglu, linear_parts, linear_qkv
from rlinf_isaac.pi0.fast.weights import Norm, copy_changed, gemma_weights, merge_adapters
from rlinf_isaac.pi0.gemma import ROPE_BASE, Rope
from rlinf_isaac.pi0.kept_prefix import KeptPrefix
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.observation import float_images

SKINNY_ROWS = 64
"""Up to this many suffix tokens (one observation) the expert uses the GEMMs of `skinny`; with more, cuBLAS is as
fast."""


class Context(NamedTuple):
    """What stays the same in all denoising steps of a call: the prefix, and the suffix's positions. L layers.

    Attributes:
        keys, values: (L, B, kv_heads, P + T, head_dim). The P prefix tokens have theirs; every denoising step
            overwrites those of the T suffix tokens.
        lengths: (B,) int64, how many of the P tokens are valid. Those come first.
        rope: rotary tables of the suffix.
        state: (B, 1, width of the expert), pi0's state token; None for pi0.5.
        mean_token: as in `PrefixCache`.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor
    rope: Rope
    state: Tensor | None
    mean_token: Tensor | None

    @property
    def prefix(self) -> int:
        """P, the number of prefix tokens, including invalid ones."""
        return self.keys.shape[3] - self.rope.cos.shape[0] // len(self.lengths)

    def kept(self) -> KeptPrefix:
        """The prefix, of which keys and values are views."""
        tokens = torch.arange(self.prefix, device=self.lengths.device)
        keys, values = (tensor[:, :, :, : self.prefix] for tensor in (self.keys, self.values))
        return KeptPrefix(keys, values, tokens < self.lengths[:, None], self.mean_token)


class FastNetwork:
    """The network of `Pi0.sample` for a model on a GPU. After the weights have changed in place, call `refresh`.

    The model's parameters become views of joined matrices (see `weights`).
    """

    @torch.no_grad()
    def __init__(self, model: Pi0, num_steps: int) -> None:
        self.model, self.config, self.num_steps = model, model.config, num_steps
        self.vlm = gemma_weights(model.vlm.language_model)
        self.expert = gemma_weights(model.expert)
        self.dtype = self.vlm[0].qkv.dtype
        self.derived = derive(model, num_steps)

    @torch.no_grad()
    def refresh(self) -> None:
        """Computes again what was computed from the weights, into the same tensors, which CUDA graphs may read."""
        merge_adapters(self.model.vlm.language_model, self.vlm)
        merge_adapters(self.model.expert, self.expert)
        copy_changed(derive(self.model, self.num_steps), self.derived)

    def __call__(self, inputs: Inputs, padded: bool) -> Tensor:
        """Returns actions (B, H, A), float32. `padded` says whether any token of a prefix is masked."""
        context, x = self.context(inputs, padded), inputs.noise.float()
        for step in range(self.num_steps):
            x = x - self.velocity(x, step, context)[0] / self.num_steps
        return x

    @torch.no_grad()
    def context(self, inputs: Inputs, padded: bool, *, mean_token: bool = False) -> Context:
        """Runs images and prompt through the VLM; see `Pi0.prefix_cache`. The noise is not read."""
        config, batch = self.config.expert, len(inputs.state)
        suffix = self.config.action_horizon + (not self.config.pi05)
        with _tf32():
            tokens, lengths = self._prefix(inputs, padded)
            shape = (config.depth, batch, config.num_kv_heads, len(tokens) // batch + suffix, config.head_dim)
            keys, values = tokens.new_empty(shape), tokens.new_empty(shape)
            mean = self._run_prefix(tokens, keys, values, lengths, padded, mean_token)
            rope = _rope(lengths[:, None] + torch.arange(suffix, device=lengths.device), config.head_dim)
            state = None if self.config.pi05 else self.model.state_proj(inputs.state.float()).to(self.dtype)[:, None]
        return Context(keys, values, lengths, rope, state, mean)

    @torch.no_grad()
    def velocity(self, x: Tensor, step: int, context: Context) -> tuple[Tensor, Tensor]:
        """`Pi0.velocity` at x (B, H, A) float32 in denoising step `step`. Both results are float32."""
        batch, constants = len(x), self.derived.steps[step]
        with _tf32():
            tokens = self._action_tokens(x, constants)
            if context.state is not None:
                tokens = torch.cat([context.state, tokens], 1)
            output = self._expert(tokens.flatten(0, 1), context, constants.norms)
            action_tokens = output.view(batch, -1, output.shape[-1])[:, -self.config.action_horizon :].float()
            return self.model.action_out_proj(action_tokens), action_tokens

    def _prefix(self, inputs: Inputs, padded: bool) -> tuple[Tensor, Tensor]:
        """Prefix tokens (B * P, width), the valid ones of an observation first, and their number (B,)."""
        tokens, valid = self.model.vlm.encode_prompt(inputs.prompt_tokens), inputs.prompt_mask
        batch = len(tokens)
        if inputs.images:
            images = self._encode_images(torch.cat(inputs.images)).view(len(inputs.images), batch, -1, tokens.shape[-1])
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
        for layer in self.derived.vision:
            normed = residual_norm(x, *layer.norm1, update, centre=True)
            qkv = F.linear(normed, *layer.qkv).view(count, patches, 3, config.num_heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(-1, width)
            normed = residual_norm(x, *layer.norm2, F.linear(mixed, *layer.out), centre=True)
            update = F.linear(F.gelu(F.linear(normed, *layer.fc1), approximate="tanh"), *layer.fc2)
        normed = residual_norm(x, *self.derived.post_layernorm, update, centre=True)
        return self.model.vlm.multi_modal_projector.linear(normed)

    def _run_prefix(
        self, x: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, padded: bool, mean_token: bool
    ) -> Tensor | None:
        """Fills the cache with the keys and values of prefix tokens x (B * P, width), `lengths` (B,) of them valid.

        Returns the mean of the valid output tokens (B, width), if it is asked for.
        """
        config, batch = self.config.vlm, len(lengths)
        prefix = len(x) // batch
        positions = torch.arange(prefix, device=x.device)
        rope = _rope(positions.expand(batch, -1), config.head_dim)
        update = None
        for index, layer in enumerate(self.vlm):
            before, after = self.derived.vlm_norms[2 * index : 2 * index + 2]
            normed = residual_norm(x, before.scale, None, update)
            if index + 1 == len(self.vlm) and not mean_token:  # nothing else reads the output of the last layer
                skipped = config.num_heads * config.head_dim
                rotate_and_keep(F.linear(normed, layer.qkv[skipped:]), *rope, keys[index], values[index], 0, heads=0)
                return None
            cache = keys[index], values[index]
            queries = rotate_and_keep(F.linear(normed, layer.qkv), *rope, *cache, 0, config.num_heads)
            own_keys, own_values = (tensor[:, :, :prefix] for tensor in cache)
            if padded:
                mixed = attention(queries, own_keys, own_values, lengths, heads=config.num_heads, prefix=prefix)
            else:
                heads = queries.unflatten(0, (batch, -1)).unflatten(-1, (-1, config.head_dim)).transpose(1, 2)
                mixed = F.scaled_dot_product_attention(heads, own_keys, own_values, enable_gqa=True)
                mixed = mixed.transpose(1, 2).reshape(len(x), -1)
            normed = residual_norm(x, after.scale, None, F.linear(mixed, layer.out))
            update = F.linear(geglu(F.linear(normed, layer.gate_up)), layer.down)
        output = residual_norm(x, self.derived.vlm_norms[-1].scale, None, update).view(batch, prefix, -1)
        valid = (positions < lengths[:, None]).to(output.dtype)
        return torch.bmm(valid[:, None], output)[:, 0] / lengths[:, None]

    def _action_tokens(self, x: Tensor, constants: Constants) -> Tensor:
        """Noisy actions (B, H, A) -> tokens (B, H, width)."""
        first = F.linear(x, self.derived.action_weight, constants.action_bias)
        if not self.config.pi05:
            first = self.model.action_time_mlp_out(F.silu(first))
        return first.to(self.dtype)

    def _expert(self, x: Tensor, context: Context, norms: list[Norm]) -> Tensor:
        """Runs the expert on suffix tokens x (B * T, width) behind the prefix. Returns the normed output."""
        heads, alone = self.config.expert.num_heads, not self.config.pi05
        rope, prefix = context.rope, context.prefix
        skinny = len(x) <= SKINNY_ROWS
        update, gate = None, None
        for index, layer in enumerate(self.expert):
            before, after = norms[2 * index : 2 * index + 2]
            cache = context.keys[index], context.values[index]
            normed = residual_norm(x, before.scale, before.shift, update, gate)
            if skinny:
                queries = linear_qkv(normed, layer.qkv, *rope, *cache, heads=heads, offset=prefix)
            else:
                queries = rotate_and_keep(F.linear(normed, layer.qkv), *rope, *cache, prefix, heads)
            mixed = attention(queries, *cache, context.lengths, heads=heads, prefix=prefix, state_alone=alone)
            out = linear_parts(mixed, layer.out) if skinny else F.linear(mixed, layer.out)
            normed = residual_norm(x, after.scale, after.shift, out, before.gate)
            if skinny:
                update = linear_parts(linear_geglu(normed, layer.gate_up), layer.down)
            else:
                update = F.linear(geglu(F.linear(normed, layer.gate_up)), layer.down)
            gate = after.gate
        return residual_norm(x, norms[-1].scale, norms[-1].shift, update, gate)


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
