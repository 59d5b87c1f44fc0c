from __future__ import annotations

import torch
from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.weights import load_weights, save_weights
from rlinf_isaac.engines.policies import LastModel, empty_model
from rlinf_isaac.pi0.layout import TIED
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.precision import to_precision


def test_an_empty_model_takes_weights_as_openpi_stores_them(tmp_path):
    """bfloat16, and the tied tensor under one of its two names only."""
    config = small_config(["compute.dtype=bfloat16"])
    stored = Pi0(config.model)
    initialise(stored, seed=0)
    to_precision(stored, "bfloat16")
    assert save_weights(tmp_path / "model.safetensors", stored.state_dict()) == dict(TIED)
    model = empty_model(config)
    load_weights(tmp_path / "model.safetensors", model)
    for (name, found), (_, wanted) in zip(model.named_parameters(), stored.named_parameters(), strict=True):
        assert found.dtype == wanted.dtype, name
        assert torch.equal(found, wanted), name
    paligemma = model.paligemma_with_expert.paligemma
    assert paligemma.lm_head.weight is paligemma.model.language_model.embed_tokens.weight


def test_the_weights_of_a_checkpoint_are_read_once_for_all_its_tasks(small_checkpoints):
    config, last = small_config(), LastModel()
    first, second = (read_bundle(path) for path in sorted(small_checkpoints.iterdir())[:2])
    model = last.of(first, config)
    assert last.of(read_bundle(first.path), config) is model
    other = last.of(second, config)
    assert other is not model
    assert any(not torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
