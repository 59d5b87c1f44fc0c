"""Checkpoints of RLinf's own pi0 models, ``openpi_rlinf``, made of OpenPI's names module by module.

`tests/rlinf_isaac/checkpoint/convert/test_openpi_rlinf_parity.py` compares them with RLinf's own modules and converter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from corpus.foreign import norm_stats_json
from safetensors.torch import save_file

from rlinf_isaac.pi0.model import Pi0

Tensors = dict[str, torch.Tensor]


def to_openpi_rlinf(model: Pi0) -> Tensors:
    """The weights of `model` as the state dict of RLinf's ``Pi0``."""
    vlm, expert = model.vlm, model.expert
    vision = vlm.vision_tower.vision_model
    tensors: Tensors = {"img.pos_embedding": vision.embeddings.position_embedding.weight[None]}
    tensors |= _module("img.stem", vision.embeddings.patch_embedding)
    for number, layer in enumerate(vision.encoder.layers):
        name = f"img.encoder.layers.{number}"
        attention = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        tensors[f"{name}.attn.in_proj_weight"] = torch.cat([each.weight for each in attention])
        tensors[f"{name}.attn.in_proj_bias"] = torch.cat([each.bias for each in attention])
        tensors |= _module(f"{name}.attn.out_proj", layer.self_attn.out_proj)
        tensors |= _module(f"{name}.norm1", layer.layer_norm1) | _module(f"{name}.norm2", layer.layer_norm2)
        tensors |= _module(f"{name}.mlp.fc1", layer.mlp.fc1) | _module(f"{name}.mlp.fc2", layer.mlp.fc2)
    tensors |= _module("img.encoder.norm", vision.post_layernorm)
    tensors |= _module("img.head", vlm.multi_modal_projector.linear)
    tensors["llm.embedder.embedding.weight"] = vlm.language_model.embed_tokens.weight
    for index, gemma in enumerate((vlm.language_model, expert)):
        for number, layer in enumerate(gemma.layers):
            name = f"llm.layers.{number}"
            for letter in "qkvo":
                weight = getattr(layer.self_attn, f"{letter}_proj").weight
                tensors[f"{name}.attn.{letter}_proj.{index}.weight"] = weight
            gating = [layer.mlp.gate_proj.weight.T, layer.mlp.up_proj.weight.T]
            tensors[f"{name}.mlps.{index}.w_gating"] = torch.stack(gating)
            tensors[f"{name}.mlps.{index}.w_linear"] = layer.mlp.down_proj.weight.T
            tensors |= _norm(f"{name}.pre_attention_norms.{index}", layer.input_layernorm)
            tensors |= _norm(f"{name}.pre_ffw_norms.{index}", layer.post_attention_layernorm)
        tensors |= _norm(f"llm.final_norms.{index}", gemma.norm)
    heads = [name for name, _ in model.named_children() if name != "paligemma_with_expert"]
    for head in heads:
        tensors |= _module(head, getattr(model, head))
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def openpi_rlinf_config(pi05: bool, **changes: Any) -> dict[str, Any]:
    """``config.json`` of RLinf's pt_to_safetensors."""
    own = {
        "action_dim": 32,
        "action_horizon": 20,
        "max_token_len": 200 if pi05 else 48,
        "paligemma_variant": "dummy",
        "action_expert_variant": "dummy",
        "pi05": pi05,
        "discrete_state_input": pi05,
        "pcd": False,
        "dtype": "float32",
    }
    return {**own, **changes}


def save_openpi_rlinf(path: Path, model: Pi0, asset_id: str = "physical-intelligence/robotwin", **changes: Any) -> Path:
    """A directory of ``sft_to_openpi_rlinf``."""
    (path / asset_id).mkdir(parents=True)
    save_file(to_openpi_rlinf(model), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(openpi_rlinf_config(model.config.pi05, **changes), indent=2))
    (path / asset_id / "norm_stats.json").write_text(norm_stats_json())
    return path


def _module(name: str, module: torch.nn.Module) -> Tensors:
    return {f"{name}.{leaf}": tensor for leaf, tensor in module.named_parameters()}


def _norm(name: str, norm: torch.nn.Module) -> Tensors:
    if hasattr(norm, "dense"):
        return _module(f"{name}.ada_modulation", norm.dense)
    return {f"{name}.scale": norm.weight}
