from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import GemmaConfig, ModelConfig, VisionConfig
from rlinf_isaac.pi0.layout import TIED, state_dict_shapes
from rlinf_isaac.pi0.model import Pi0

sizes = st.integers(1, 9)


@st.composite
def architectures(draw: st.DrawFn) -> ModelConfig:
    """Any architecture that can exist: the two transformers share depth and heads, patches tile the image."""
    shared = {name: draw(st.integers(1, 3)) for name in ("depth", "num_heads", "num_kv_heads", "head_dim")}
    patch = draw(sizes)
    return ModelConfig(
        pi05=draw(st.booleans()),
        vlm=GemmaConfig(width=draw(sizes), mlp_dim=draw(sizes), **shared),
        expert=GemmaConfig(width=draw(sizes), mlp_dim=draw(sizes), **shared),
        vision=VisionConfig(
            width=draw(sizes),
            depth=draw(st.integers(1, 3)),
            mlp_dim=draw(sizes),
            num_heads=1,
            patch_size=patch,
            image_size=patch * draw(st.integers(1, 4)),
        ),
        vocab_size=draw(sizes),
        action_dim=draw(sizes),
        action_horizon=draw(sizes),
        max_token_len=draw(sizes),
    )


def of_the_module(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = Pi0(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("preset", ["tiny", "small", "pi0", "pi05"])
def test_the_presets(preset):
    config = load_config(preset).model
    assert state_dict_shapes(config) == of_the_module(config)


@settings(deadline=None, max_examples=60)
@given(architectures())
def test_any_architecture(config):
    assert state_dict_shapes(config) == of_the_module(config)


@pytest.mark.parametrize("pi05", [False, True])
def test_the_tied_pairs_are_those_of_the_module(pi05):
    model = Pi0(load_config("tiny", [f"model.pi05={str(pi05).lower()}"]).model)
    names: dict[int, list[str]] = {}
    for name, parameter in model.state_dict(keep_vars=True).items():
        names.setdefault(id(parameter), []).append(name)
    assert {frozenset(pair) for pair in TIED} == {frozenset(found) for found in names.values() if len(found) > 1}


def test_it_needs_no_torch():
    code = "import sys, rlinf_isaac.pi0.layout; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False False"
