"""A tiny model with tied embeddings, and bundles of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.write_bundle import write_bundle

NORM_STATS = b'{"norm_stats": {"state": {"mean": [0.5], "std": [2.0]}, "actions": {"mean": [0.0], "std": [1.0]}}}'


class TinyModel(torch.nn.Module):
    """Names and the tie of pi0's language model, in a few hundred bytes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.lm_head = torch.nn.Linear(3, 5, bias=False)
            self.model = torch.nn.ModuleDict({"embed_tokens": torch.nn.Embedding(5, 3), "norm": torch.nn.LayerNorm(3)})
        self.model["embed_tokens"].weight = self.lm_head.weight


@pytest.fixture
def tiny_model() -> Callable[..., torch.nn.Module]:
    return TinyModel


@pytest.fixture
def make_bundle() -> Callable[..., Bundle]:
    """Write a valid bundle, with some arguments replaced."""

    def make(path: Path, **changes: Any) -> Bundle:
        arguments: dict[str, Any] = {
            "state_dict": TinyModel().state_dict(),
            "config": {"model": {"pi05": False, "action_dim": 32}},
            "norm_stats": NORM_STATS,
            "asset_id": "isaaclab_stack_cube",
            "step": int(path.name) if path.name.isdecimal() else 400,
            "lineage": {"dataset": "d" * 64, "parent": None},
        }
        return write_bundle(path, **{**arguments, **changes})

    return make
