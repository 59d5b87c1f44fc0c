"""rlinf-openpi's PyTorch model, importable beside this project's torch.

Its pins (torch 2.7.1, numpy < 2, jax) exclude the environment of a current GPU. The model needs of jax only two small
modules: the sizes of the Gemma variants and an image resize that full-size images never reach. They are replaced; the
model's code is untouched.
"""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass

import torch

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


def load(pi05: bool, dtype: str, horizon: int) -> torch.nn.Module:
    """A full-size ``PI0Pytorch`` on the GPU with random weights, in eval mode; its `sample_actions` is not compiled."""
    _replace_jax()
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
    compile, torch.compile = torch.compile, lambda function, **_: function
    try:
        with torch.device("cuda"):
            return pi0_pytorch.PI0Pytorch(settings).cuda().eval()
    finally:
        torch.compile = compile


def _replace_jax() -> None:
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
    _replace_jax()
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
