"""Without a GPU Triton interprets its kernels, in float32: it has no bfloat16 products there."""

from __future__ import annotations

import importlib.util

import pytest
import torch

collect_ignore = [] if importlib.util.find_spec("triton") else ["test_kernels.py", "test_network.py"]


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(params=["float32", "bfloat16"])
def dtype(request) -> torch.dtype:
    if request.param == "bfloat16" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return getattr(torch, request.param)
