"""pi0 and pi0.5 as a torch module, with exactly the state-dict names and shapes of OpenPI's PyTorch model.

Flow matching: with noise n, actions a and time t in [0, 1], the model sees x_t = t n + (1 - t) a and predicts the
velocity u = n - a. Sampling integrates dx/dt = velocity from t = 1 (noise) down to t = 0 (actions) with Euler steps.
Source: OpenPI ``models_pytorch/pi0_pytorch.py``; pi0 paper arXiv 2410.24164, pi0.5 paper arXiv 2504.16054.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlinf_isaac.config.fits import check_architecture
from rlinf_isaac.config.schema import ModelConfig
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.pi0.gemma import AdaptiveRMSNorm, Gemma, KeysValues, RMSNorm, Rope, masked_bias
from rlinf_isaac.pi0.observation import Observation, float_images
from rlinf_isaac.pi0.siglip import Encoder, VisionTower

MIN_PERIOD, MAX_PERIOD = 4e-3, 4.0
"""Shortest and longest period of the time embedding; time runs over [0, 1]."""


class PrefixCache(NamedTuple):
    """The part of the computation that is the same for every denoising step: the prefix, and the suffix's positions.

    Attributes:
        keys_values: keys and values of the prefix tokens, one entry per layer.
        suffix_rope: rotary tables of the suffix positions.
        suffix_bias: additive mask from suffix tokens to prefix and suffix tokens; None if nothing is masked.
        valid: (B, P) bool, which prefix tokens are none of padding and missing cameras.
        mean_token: (B, width of the VLM), mean of the VLM's output over the valid prefix tokens; None unless
            `Pi0.prefix_cache` was asked for it.
    """

    keys_values: list[KeysValues]
    suffix_rope: Rope
    suffix_bias: Tensor | None
    valid: Tensor
    mean_token: Tensor | None = None

    def repeat(self, times: int) -> PrefixCache:
        """Repeats every row `times` times in succession, for several x_t per observation."""
        return PrefixCache(
            [KeysValues(*(x.repeat_interleave(times, 0) for x in layer)) for layer in self.keys_values],
            Rope(*(x.repeat_interleave(times, 0) for x in self.suffix_rope)),
            None if self.suffix_bias is None else self.suffix_bias.repeat_interleave(times, 0),
            self.valid.repeat_interleave(times, 0),
            None if self.mean_token is None else self.mean_token.repeat_interleave(times, 0),
        )


class Projector(nn.Module):
    """Linear layer from vision features to the width of the language model."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(vision_width, width)


class PaliGemmaModel(nn.Module):
    """Vision tower, projector and language model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vision_tower = VisionTower(config.vision)
        self.multi_modal_projector = Projector(config.vision.width, config.vlm.width)
        self.language_model = Gemma(config.vlm, vocab_size=config.vocab_size)

    def encode_images(self, images: Tensor) -> Tensor:
        """images (B, 3, S, S), uint8 or float in [-1, 1] -> tokens (B, patches, width)."""
        return self.multi_modal_projector.linear(self.vision_tower(float_images(images)))

    def encode_prompt(self, tokens: Tensor) -> Tensor:
        """tokens (B, L) -> embeddings (B, L, width), scaled by sqrt(width) as in Gemma."""
        embedded = self.language_model.embed_tokens(tokens)
        return embedded * math.sqrt(embedded.shape[-1])


class PaliGemma(nn.Module):
    """The VLM. pi0 does not use `lm_head`, but the state dict has it; it is tied to the token embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = PaliGemmaModel(config)
        self.lm_head = nn.Linear(config.vlm.width, config.vocab_size, bias=False)
        self.lm_head.weight = self.model.language_model.embed_tokens.weight


class ActionExpert(nn.Module):
    """The action expert. Its `lm_head` is unused and exists because OpenPI's checkpoints contain it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = Gemma(config.expert, condition_width=config.expert.width if config.pi05 else None)
        self.lm_head = nn.Linear(config.expert.width, config.vocab_size, bias=False)


class PaliGemmaWithExpert(nn.Module):
    """The two transformers, under the name the state dict gives them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.paligemma = PaliGemma(config)
        self.gemma_expert = ActionExpert(config)


class Pi0(nn.Module):
    """The policy network. Inputs must be on the device of the parameters; results are float32.

    Shapes: B batch, H `action_horizon`, A `action_dim` (32), P prefix tokens, W width of the expert.
    Raises InvalidJob for an architecture that cannot exist.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if misfits := list(check_architecture(config)):
            raise InvalidJob([problem for _, problem in misfits])
        self.config = config
        width, action_dim = config.expert.width, config.action_dim
        self.paligemma_with_expert = PaliGemmaWithExpert(config)
        self.action_in_proj = nn.Linear(action_dim, width)
        self.action_out_proj = nn.Linear(width, action_dim)
        if config.pi05:
            self.time_mlp_in = nn.Linear(width, width)
            self.time_mlp_out = nn.Linear(width, width)
        else:
            self.state_proj = nn.Linear(action_dim, width)
            self.action_time_mlp_in = nn.Linear(2 * width, width)
            self.action_time_mlp_out = nn.Linear(width, width)

    @property
    def vlm(self) -> PaliGemmaModel:
        """Vision tower, projector and language model. RL keeps them frozen."""
        return self.paligemma_with_expert.paligemma.model

    @property
    def expert(self) -> Gemma:
        """The transformer over state and action tokens."""
        return self.paligemma_with_expert.gemma_expert.model

    @property
    def stacks(self) -> tuple[Encoder, Gemma, Gemma]:
        """The three transformers: vision encoder, language model, expert. Each has its ``layers``."""
        return self.vlm.vision_tower.vision_model.encoder, self.vlm.language_model, self.expert

    def forward(self, observation: Observation, actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Per-element squared error of the velocity, (K B, H, A).

        Takes actions (B, H, A), noise (K B, H, A) and time (K B,). K is usually 1. With K > 1, rows K i .. K i + K - 1
        are K points of the flow of observation i, whose images and prompt are encoded only once; encoding them is most
        of the work.
        """
        cache, state, samples = self.prefix_cache(observation), observation.state, len(time) // len(actions)
        if samples > 1:
            cache = cache.repeat(samples)
            state, actions = state.repeat_interleave(samples, 0), actions.repeat_interleave(samples, 0)
        t = time[:, None, None]
        velocity, _ = self.velocity(state, t * noise + (1 - t) * actions, time, cache)
        return F.mse_loss(velocity, noise - actions, reduction="none")

    @torch.no_grad()
    def sample(self, observation: Observation, noise: Tensor, num_steps: int) -> Tensor:
        """Actions (B, H, A) from noise (B, H, A) by `num_steps` Euler steps."""
        cache = self.prefix_cache(observation)
        x = noise
        for step in range(num_steps):
            time = torch.full((x.shape[0],), 1 - step / num_steps, dtype=x.dtype, device=x.device)
            x = x - self.velocity(observation.state, x, time, cache)[0] / num_steps
        return x

    def prefix_cache(self, observation: Observation, *, mean_token: bool = False) -> PrefixCache:
        """Runs images and prompt through the VLM. Neither the state nor the actions are read.

        With `mean_token`, the last layer's attention and MLP run too; the suffix does not need their output.
        """
        tokens, valid = self._prefix(observation)
        counts = valid.cumsum(1)
        rope = Rope.of(counts - 1, self.config.vlm.head_dim, tokens.dtype)
        # Without a mask, attention on a GPU uses a faster kernel. On the CPU the mask is always there, so that a row's
        # rounding does not depend on whether another row of the batch is padded.
        unmasked = valid.is_cuda and not observation.padded
        bias = None if unmasked else masked_bias(valid[:, None, None, :], tokens.dtype)
        mean = None
        if mean_token:
            keys_values, output = self.vlm.language_model.encode(tokens, rope, bias)
            mean = (output * valid[..., None]).sum(1) / counts[:, -1:]
        else:
            keys_values = self.vlm.language_model.keys_and_values(tokens, rope, bias)

        return PrefixCache(keys_values, *self.suffix_places(valid, counts, unmasked, tokens.dtype), valid, mean)

    def suffix_places(
        self, valid: Tensor, counts: Tensor, unmasked: bool, dtype: torch.dtype
    ) -> tuple[Rope, Tensor | None]:
        """Rotary tables and additive mask of the suffix, behind a prefix whose visible tokens are `valid` (B, P)."""
        suffix_visible = self._suffix_visible(valid.device)
        length = suffix_visible.shape[0]
        positions = counts[:, -1:] + torch.arange(length, device=valid.device)
        rope = Rope.of(positions, self.config.expert.head_dim, dtype)
        if unmasked and self.config.pi05:
            return rope, None
        prefix_visible = valid[:, None, :].expand(-1, length, -1)
        visible = torch.cat([prefix_visible, suffix_visible.expand(valid.shape[0], -1, -1)], dim=2)
        # The mask has one row per query head of a group, in the layout of `gemma.Attention`.
        group = self.config.expert.num_heads // self.config.expert.num_kv_heads
        return rope, masked_bias(visible.repeat_interleave(group, dim=1)[:, None], dtype)

    def velocity(self, state: Tensor, x_t: Tensor, time: Tensor, cache: PrefixCache) -> tuple[Tensor, Tensor]:
        """Velocity (B, H, A) at x_t and time (B,), and the expert's output tokens (B, H, W) from which it is projected.

        `state` (B, A) is normalised and padded, as in `Observation`.
        """
        tokens, condition = self._suffix(state, x_t, time)
        output = self.expert(
            tokens.to(cache.suffix_rope.cos.dtype), cache.suffix_rope, cache.suffix_bias, cache.keys_values, condition
        )
        action_tokens = output[:, -self.config.action_horizon :].to(self.action_out_proj.weight.dtype)
        return self.action_out_proj(action_tokens).float(), action_tokens

    def _prefix(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Tokens (B, P, width) of the present cameras and the prompt, and which of them are valid (B, P)."""
        cameras = observation.present_cameras or ()
        if not cameras:
            return self.vlm.encode_prompt(observation.prompt_tokens), observation.prompt_mask
        # All cameras go through the vision tower as one batch. The prompt is encoded after them, so that the backward
        # pass reaches its embedding first: the gradient of the embedding, the largest of all, is exchanged between GPUs
        # while the gradients of the tower are computed.
        encoded = self.vlm.encode_images(torch.cat([observation.images[camera] for camera in cameras]))
        prompt = self.vlm.encode_prompt(observation.prompt_tokens)
        images = encoded.to(prompt.dtype).chunk(len(cameras))
        masks = [observation.image_masks[camera][:, None].expand(-1, encoded.shape[1]) for camera in cameras]
        return torch.cat([*images, prompt], dim=1), torch.cat([*masks, observation.prompt_mask], dim=1)

    def _suffix(self, state: Tensor, x_t: Tensor, time: Tensor) -> tuple[Tensor, Tensor | None]:
        """Suffix tokens, and the condition of the expert's norms (pi0.5).

        pi0: a state token, then H action tokens into which the time is mixed. pi0.5: H action tokens; the time is the
        condition (B, W), and the state, if it is an input at all, is text in the prompt.
        """
        dtype = self.action_in_proj.weight.dtype
        action_tokens = self.action_in_proj(x_t.to(dtype))
        time_embedding = sinusoidal_embedding(time, action_tokens.shape[-1]).to(dtype)
        if self.config.pi05:
            return action_tokens, F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(time_embedding))))
        mixed = torch.cat([action_tokens, time_embedding[:, None].expand_as(action_tokens)], dim=2)
        action_tokens = self.action_time_mlp_out(F.silu(self.action_time_mlp_in(mixed)))
        return torch.cat([self.state_proj(state.to(dtype))[:, None], action_tokens], dim=1), None

    def _suffix_visible(self, device: torch.device) -> Tensor:
        """(S, S) bool: row i is True where suffix token i may attend. Only pi0's state token is limited: to itself."""
        length = self.config.action_horizon + (not self.config.pi05)
        visible = torch.ones(length, length, dtype=torch.bool, device=device)
        if not self.config.pi05:
            visible[0, 1:] = False
        return visible


def sinusoidal_embedding(time: Tensor, width: int) -> Tensor:
    """(B, width) float64: sines, then cosines of time (B,) at periods spaced geometrically.

    float64, as in OpenPI, because the argument reaches 2 pi * 250 at the shortest period.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    periods = MIN_PERIOD * (MAX_PERIOD / MIN_PERIOD) ** fraction
    angles = time[:, None] * (2 * math.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def initialise(model: Pi0, seed: int) -> None:
    """Initialises the weights for training from scratch. Equal seeds give equal weights on the same type of device.

    Linear layers and convolutions have torch's default initialisation. Embeddings are scaled so that tokens have unit
    variance. Norms are identities; the gates of adaptive norms are closed, as in OpenPI's JAX model.
    """
    generator = torch.Generator(device=model.action_in_proj.weight.device).manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    # A second loop, because lm_head shares the embedding's weight and an adaptive norm contains a linear layer: the
    # first loop has overwritten both.
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5, generator=generator)
        elif isinstance(module, AdaptiveRMSNorm):
            nn.init.zeros_(module.dense.weight)
            nn.init.zeros_(module.dense.bias)
        elif isinstance(module, RMSNorm):
            nn.init.zeros_(module.weight)
