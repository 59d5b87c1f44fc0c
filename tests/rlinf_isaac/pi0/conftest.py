"""Small models and random batches, as fixtures that are functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from rlinf_isaac.config.schema import GemmaConfig, ModelConfig, PolicyConfig, VisionConfig
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.observation import CAMERAS, Observation

torch.set_num_threads(1)


def model_config(pi05: bool, **changes) -> ModelConfig:
    """Different widths, two key heads and odd sizes, so that nothing fits by accident."""
    values = dict(
        pi05=pi05,
        vlm=GemmaConfig(width=48, depth=3, mlp_dim=80, num_heads=4, num_kv_heads=2, head_dim=8),
        expert=GemmaConfig(width=32, depth=3, mlp_dim=56, num_heads=4, num_kv_heads=2, head_dim=8),
        vision=VisionConfig(width=24, depth=2, mlp_dim=40, num_heads=3, patch_size=8, image_size=24),
        vocab_size=280,
        action_dim=32,
        action_horizon=6,
        max_token_len=64,
    )
    return ModelConfig(**(values | changes))


@pytest.fixture
def make_config() -> Callable[..., ModelConfig]:
    return model_config


@pytest.fixture(params=[False, True], ids=["pi0", "pi05"])
def config(request) -> ModelConfig:
    return model_config(request.param)


@pytest.fixture
def model(config) -> Pi0:
    """Random weights, norms included: with their start values, adaptive norms would close every residual."""
    model = Pi0(config)
    initialise(model, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(std=0.2, generator=generator)
    return model.eval()


@pytest.fixture
def make_observation() -> Callable[..., Observation]:
    """Three rows: two cameras, the third masked; prompts of different lengths, padded."""

    def make(config: ModelConfig, seed: int = 0) -> Observation:
        generator = torch.Generator().manual_seed(seed)
        size = config.vision.image_size
        images = {camera: torch.rand(3, 3, size, size, generator=generator) * 2 - 1 for camera in CAMERAS}
        lengths = torch.tensor([9, 4, 7])
        return Observation(
            images=images,
            image_masks={camera: torch.full((3,), camera != CAMERAS[2]) for camera in CAMERAS},
            state=torch.randn(3, config.action_dim, generator=generator),
            prompt_tokens=torch.randint(0, config.vocab_size, (3, 9), generator=generator),
            prompt_mask=torch.arange(9) < lengths[:, None],
        )

    return make


@pytest.fixture
def make_flow() -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Actions, noise (3, H, A) and time (3,)."""

    def make(config: ModelConfig, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shape = (3, config.action_horizon, config.action_dim)
        actions, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        return actions, noise, torch.rand(3, generator=generator) * 0.999 + 0.001

    return make


@pytest.fixture
def policy_config() -> PolicyConfig:
    return PolicyConfig(action_chunk=4, denoise_steps=3)
