"""RLinf's own pi0 model and its converters, from a checkout of its repository, without the packages around them.

Only torch, numpy and einops are needed; neither Ray nor OpenPI.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rlinf_isaac.config.schema import ModelConfig

# RLinf's vision tower "mu" on 224 pixels; its vocabulary is fixed.
_VISION = {"width": 32, "depth": 1, "mlp_dim": 128, "patch_size": 14, "num_heads": 2, "image_size": 224}
MU = [*(f"model.vision.{name}={size}" for name, size in _VISION.items()), "model.vocab_size=257152"]
"""Overrides that give a job this vision tower and this vocabulary."""

_PACKAGES = (
    "rlinf",
    "rlinf.utils",
    "rlinf.utils.ckpt_convertor",
    "rlinf.models",
    "rlinf.models.embodiment",
    "rlinf.models.embodiment.openpi_rlinf",
)


@contextmanager
def rlinf_modules() -> Iterator[types.SimpleNamespace]:
    """The modules of ``pi0_model``, ``converter`` (to OpenPI's names) and ``saver`` (of a training's weights)."""
    root = os.environ.get("RLINF_MAIN")
    if not root:
        pytest.skip("RLINF_MAIN names no checkout of RLinf's repository")
    pytest.importorskip("einops")
    compile_, torch.compile = torch.compile, lambda function: function
    before = set(sys.modules)
    try:
        for name in _PACKAGES:
            sys.modules[name] = module = types.ModuleType(name)
            module.__path__ = [str(Path(root) / name.replace(".", "/"))]
        package = "rlinf.models.embodiment.openpi_rlinf.pi0_model"
        names = ("pi0", "pi0_config", "model", "siglip", "lora", "gemma")
        found = {name: importlib.import_module(f"{package}.{name}") for name in names}
        converters = "rlinf.utils.ckpt_convertor.openpi"
        found["converter"] = importlib.import_module(f"{converters}.openpi_rlinf_to_openpi_pytorch")
        found["saver"] = importlib.import_module(f"{converters}.pt_to_safetensors")
        yield types.SimpleNamespace(**found)
    finally:
        torch.compile = compile_
        for name in set(sys.modules) - before:
            if name.startswith("rlinf") and not name.startswith("rlinf_isaac"):
                del sys.modules[name]


def rlinf_config(rlinf: types.SimpleNamespace, config: ModelConfig, **changes: Any) -> Any:
    """RLinf's ``Pi0Config`` of Gemmas of the variant ``dummy``, in float32."""
    variants = {"paligemma_variant": "dummy", "action_expert_variant": "dummy", "dtype": "float32"}
    names = ("action_dim", "action_horizon", "max_token_len", "pi05")
    return rlinf.pi0_config.Pi0Config(**variants, **{name: getattr(config, name) for name in names} | changes)


def rlinf_model(monkeypatch: pytest.MonkeyPatch, rlinf: types.SimpleNamespace, own: Any) -> torch.nn.Module:
    """RLinf's model of its config `own`, with the tower "mu"."""
    tower = rlinf.siglip.SigLIPViT
    monkeypatch.setattr(rlinf.siglip, "SigLIPViT", lambda variant, **others: tower(variant="mu/14", **others))
    return own.create()


def approximate_gelu(monkeypatch: pytest.MonkeyPatch, rlinf: types.SimpleNamespace) -> None:
    """Give RLinf's model OpenPI's GELU, the tanh approximation. Its own is exact, and its losses differ by that."""
    approximate = types.SimpleNamespace(**vars(F) | {"gelu": lambda x: F.gelu(x, approximate="tanh")})
    monkeypatch.setattr(rlinf.siglip, "F", approximate)
    for module in (rlinf.lora, rlinf.gemma):
        monkeypatch.setattr(module, "gelu_glu", lambda gate, up: F.gelu(gate, approximate="tanh") * up)
