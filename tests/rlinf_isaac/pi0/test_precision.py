from __future__ import annotations

import torch

from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.precision import to_precision

OPENPI_KEEPS = (
    "vision_tower.vision_model.embeddings.patch_embedding.weight",
    "vision_tower.vision_model.embeddings.patch_embedding.bias",
    "vision_tower.vision_model.embeddings.position_embedding.weight",
    "input_layernorm",
    "post_attention_layernorm",
    "model.norm",
)
"""`params_to_keep_float32` of OpenPI's gemma_pytorch.py, which casts the two transformers and nothing else."""


def test_bfloat16_is_mixed_as_openpi_does(config) -> None:
    model = to_precision(Pi0(config), "bfloat16")
    for name, parameter in model.named_parameters():
        kept = not name.startswith("paligemma_with_expert.") or any(part in name for part in OPENPI_KEEPS)
        # OpenPI's norms are called ...language_model.norm and ...gemma_expert.model.norm; both hold "model.norm".
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name


def test_ties_and_names_stay(config) -> None:
    model = Pi0(config)
    names = list(model.state_dict())
    paligemma = to_precision(model, "bfloat16").paligemma_with_expert.paligemma
    assert paligemma.lm_head.weight is paligemma.model.language_model.embed_tokens.weight
    assert list(model.state_dict()) == names
    assert {parameter.dtype for parameter in to_precision(model, "float32").parameters()} == {torch.float32}


def test_a_bfloat16_model_samples_and_trains(model, config, make_observation, make_flow) -> None:
    observation, (actions, noise, time) = make_observation(config), make_flow(config)
    exact = model.sample(observation, noise, 3), model(observation, actions, noise, time).detach()
    to_precision(model, "bfloat16")
    loss = model(observation, actions, noise, time)
    for found, wanted in zip((model.sample(observation, noise, 3), loss), exact, strict=True):
        assert found.dtype == torch.float32
        assert 0 < (found - wanted).norm() / wanted.norm() < 0.02
    loss.mean().backward()
    assert all(p.grad is None or p.grad.dtype == p.dtype for p in model.parameters())
