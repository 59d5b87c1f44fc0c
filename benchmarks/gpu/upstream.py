"""rlinf-openpi's PyTorch model, importable beside this project's torch.

Its pins (torch 2.7.1, numpy < 2, jax) exclude the environment of a current GPU. The model needs of jax only two small
modules: the sizes of the Gemma variants and an image resize that full-size images never reach. They are replaced; the
model's code is untouched.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measure import DEVICE, TINY

from rlinf_isaac.pi0.observation import Observation


@dataclass
class _Gemma:
    width: int
    depth: int
    mlp_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int


_VARIANTS = {
    "gemma_2b": _Gemma(2048, 18, 16384, 8, 1, 256),
    "gemma_300m": _Gemma(1024, 18, 4096, 8, 1, 256),
}
if TINY:
    _VARIANTS = {name: _Gemma(each.width, 2, 64, 1, 1, 32) for name, each in _VARIANTS.items()}


def load(pi05: bool, dtype: str, horizon: int) -> torch.nn.Module:
    """A full-size ``PI0Pytorch`` on the GPU with random weights, in eval mode; its `sample_actions` is not compiled."""
    replace_jax()
    from openpi.models_pytorch import pi0_pytorch

    settings = types.SimpleNamespace(
        paligemma_variant="gemma_2b",
        action_expert_variant="gemma_300m",
        pi05=pi05,
        dtype=dtype,
        action_dim=32,
        action_horizon=horizon,
        max_token_len=200 if pi05 else 48,
    )
    return built(pi0_pytorch.PI0Pytorch, settings).eval()


def built(model: Callable[[Any], torch.nn.Module], settings: object) -> torch.nn.Module:
    """A model of OpenPI's on the GPU, whose `sample_actions` is not compiled."""
    from openpi.models_pytorch import gemma_pytorch

    if TINY:
        gemma_pytorch.PaliGemmaForConditionalGeneration = _shrunk(gemma_pytorch.PaliGemmaForConditionalGeneration)
        gemma_pytorch.GemmaForCausalLM = _shrunk(gemma_pytorch.GemmaForCausalLM)
    compile, torch.compile = torch.compile, lambda function, **_: function
    try:
        with torch.device(DEVICE):
            return model(settings).to(DEVICE)
    finally:
        torch.compile = compile


def _shrunk(kind: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
    """The same with what OpenPI's constructor has written into it made small, too."""

    def make(config: Any) -> torch.nn.Module:
        for each in (config, getattr(config, "text_config", config)):
            each.vocab_size = 512
        if hasattr(config, "vision_config"):
            config.vision_config.num_hidden_layers, config.vision_config.intermediate_size = 2, 64
        return kind(config=config)

    return make


def replace_jax() -> None:
    """Put the two replacements where OpenPI's modules import them from."""
    gemma = types.ModuleType("openpi.models.gemma")
    gemma.get_config = _VARIANTS.__getitem__  # type: ignore[attr-defined]
    gemma.Config = _Gemma  # type: ignore[attr-defined]
    tools = types.ModuleType("openpi.shared.image_tools")
    sys.modules |= {"openpi.models.gemma": gemma, "openpi.shared.image_tools": tools}
    import openpi.models
    import openpi.shared

    openpi.models.gemma, openpi.shared.image_tools = gemma, tools


def only_views(count: int) -> None:
    """Lets OpenPI encode `count` cameras. As shipped it encodes all three, the masked one included."""
    replace_jax()
    from openpi.models_pytorch import preprocessing_pytorch

    keys = preprocessing_pytorch.IMAGE_KEYS[:count]
    preprocessing_pytorch.preprocess_observation_pytorch.__kwdefaults__["image_keys"] = keys


def as_upstream(observation: Observation) -> types.SimpleNamespace:
    """The same observation in OpenPI's names."""
    return types.SimpleNamespace(
        images=dict(observation.images),
        image_masks=dict(observation.image_masks),
        state=observation.state,
        tokenized_prompt=observation.prompt_tokens,
        tokenized_prompt_mask=observation.prompt_mask,
        token_ar_mask=None,
        token_loss_mask=None,
    )
