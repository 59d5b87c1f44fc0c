"""The layouts at full size, by names and shapes alone: every parameter of pi0 and pi0.5, and nothing else."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
import torch
from corpus.openpi_rlinf import to_openpi_rlinf

from rlinf_isaac.checkpoint.convert import openpi_jax, openpi_rlinf
from rlinf_isaac.checkpoint.convert.orbax import OrbaxArray
from rlinf_isaac.checkpoint.convert.tensors import Storage, StoredTensor, bytes_of, dense_stride
from rlinf_isaac.checkpoint.coverage import plan_model
from rlinf_isaac.config import load_config
from rlinf_isaac.pi0.layout import UNREAD
from rlinf_isaac.pi0.model import Pi0

# What OpenPI's released checkpoints hold, as its modules have it: So400m/14, gemma_2b and gemma_300m.
IMG = {
    "embedding/kernel": (14, 14, 3, 1152),
    "embedding/bias": (1152,),
    "pos_embedding": (1, 256, 1152),
    "head/kernel": (1152, 2048),
    "head/bias": (2048,),
    "Transformer/encoder_norm/scale": (1152,),
    "Transformer/encoder_norm/bias": (1152,),
}
BLOCK = {
    "LayerNorm_0/scale": (1152,),
    "LayerNorm_0/bias": (1152,),
    "LayerNorm_1/scale": (1152,),
    "LayerNorm_1/bias": (1152,),
    "MlpBlock_0/Dense_0/kernel": (1152, 4304),
    "MlpBlock_0/Dense_0/bias": (4304,),
    "MlpBlock_0/Dense_1/kernel": (4304, 1152),
    "MlpBlock_0/Dense_1/bias": (1152,),
    "MultiHeadDotProductAttention_0/query/kernel": (1152, 16, 72),
    "MultiHeadDotProductAttention_0/query/bias": (16, 72),
    "MultiHeadDotProductAttention_0/key/kernel": (1152, 16, 72),
    "MultiHeadDotProductAttention_0/key/bias": (16, 72),
    "MultiHeadDotProductAttention_0/value/kernel": (1152, 16, 72),
    "MultiHeadDotProductAttention_0/value/bias": (16, 72),
    "MultiHeadDotProductAttention_0/out/kernel": (16, 72, 1152),
    "MultiHeadDotProductAttention_0/out/bias": (1152,),
}
LLM = {
    "attn/q_einsum/w": (8, 2048, 256),
    "attn/kv_einsum/w": (2, 1, 2048, 256),
    "attn/attn_vec_einsum/w": (8, 256, 2048),
    "mlp/gating_einsum": (2, 2048, 16384),
    "mlp/linear": (16384, 2048),
    "pre_attention_norm/scale": (2048,),
    "pre_ffw_norm/scale": (2048,),
    "attn/q_einsum_1/w": (8, 1024, 256),
    "attn/kv_einsum_1/w": (2, 1, 1024, 256),
    "attn/attn_vec_einsum_1/w": (8, 256, 1024),
    "mlp_1/gating_einsum": (2, 1024, 4096),
    "mlp_1/linear": (4096, 1024),
}
HEADS = {
    False: {"state_proj": (32, 1024), "action_time_mlp_in": (2048, 1024), "action_time_mlp_out": (1024, 1024)},
    True: {"time_mlp_in": (1024, 1024), "time_mlp_out": (1024, 1024)},
}


def of_jax(pi05: bool) -> dict[str, tuple[int, ...]]:
    shapes = {f"PaliGemma/img/{name}": shape for name, shape in IMG.items()}
    shapes |= {f"PaliGemma/img/Transformer/encoderblock/{name}": (27, *shape) for name, shape in BLOCK.items()}
    shapes |= {f"PaliGemma/llm/layers/{name}": (18, *shape) for name, shape in LLM.items()}
    shapes |= {"PaliGemma/llm/embedder/input_embedding": (257152, 2048), "PaliGemma/llm/final_norm/scale": (2048,)}
    for name, first in (("layers/pre_attention_norm_1", (18,)), ("layers/pre_ffw_norm_1", (18,)), ("final_norm_1", ())):
        if pi05:
            shapes[f"PaliGemma/llm/{name}/Dense_0/kernel"] = (*first, 1024, 3072)
            shapes[f"PaliGemma/llm/{name}/Dense_0/bias"] = (*first, 3072)
        else:
            shapes[f"PaliGemma/llm/{name}/scale"] = (*first, 1024)
    heads = {"action_in_proj": (32, 1024), "action_out_proj": (1024, 32), **HEADS[pi05]}
    shapes |= {f"{head}/kernel": shape for head, shape in heads.items()}
    return shapes | {f"{head}/bias": shape[1:] for head, shape in heads.items()}


@pytest.fixture(params=[False, True], ids=["pi0", "pi05"])
def model(request):
    return load_config("pi05" if request.param else "pi0").model


def test_openpi_jax(model):
    store = types.SimpleNamespace(files=())
    arrays = {
        ("params", *name.split("/")): OrbaxArray(store, name, "BF16", shape, shape)
        for name, shape in of_jax(model.pi05).items()
    }
    found = {name: tensor.info for (name,), tensor in openpi_jax.to_openpi(arrays).items()}
    assert len(found) == (811 if model.pi05 else 776)  # of 813 and 778: one is tied, one is never read
    assert plan_model(found, model, "pi0_base").unread == UNREAD


def test_openpi_rlinf(model):
    with torch.device("meta"):
        tensors = to_openpi_rlinf(Pi0(model))
    stored = {}
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        storage = Storage(Path("model.safetensors"), name, bytes_of("F32", shape))
        stored[name] = StoredTensor("F32", shape, dense_stride(shape), storage)
    found = openpi_rlinf.to_openpi(stored, "model.safetensors")
    assert {name for name, _ in found.values()} == set(tensors)
    assert plan_model({name: tensor.info for name, (_, tensor) in found.items()}, model, "x").unread == UNREAD
