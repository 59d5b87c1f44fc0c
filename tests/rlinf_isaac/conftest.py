"""Without a GPU Triton interprets its kernels; with one they run. And norm stats that several rooms normalise by."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from rlinf_isaac.data.norm_stats import FeatureStats, NormStats

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined: before anything imports triton


@pytest.fixture
def norm_stats() -> NormStats:
    """Of 8-D states and 7-D actions, every dim different."""

    def feature(dim: int) -> FeatureStats:
        mean = np.linspace(-1, 2, dim)
        std = np.linspace(0.1, 3, dim)
        return FeatureStats(mean=mean, std=std, q01=mean - 2 * std, q99=mean + 2.5 * std)

    return NormStats(state=feature(8), actions=feature(7))
