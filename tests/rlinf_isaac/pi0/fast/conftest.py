"""Without a GPU Triton interprets its kernels, in float32: it has no bfloat16 products there."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from rlinf_isaac.config.schema import GemmaConfig, VisionConfig

needs_triton = ["test_explorer.py", "test_kernels.py", "test_network.py"]
collect_ignore = [] if importlib.util.find_spec("triton") else needs_triton


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request) -> torch.dtype:
    if request.param == "bfloat16" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return getattr(torch, request.param)


@pytest.fixture
def config(make_config, request):
    """Sizes that the kernels' tiles divide, and few tokens: interpreted kernels take their time."""
    sizes = dict(depth=2, num_heads=4, num_kv_heads=2, head_dim=32)
    vlm, expert = GemmaConfig(width=48, mlp_dim=80, **sizes), GemmaConfig(width=32, mlp_dim=64, **sizes)
    vision = VisionConfig(width=24, depth=1, mlp_dim=40, num_heads=3, patch_size=8, image_size=16)
    return make_config(getattr(request, "param", False), vlm=vlm, expert=expert, vision=vision, action_horizon=3)
