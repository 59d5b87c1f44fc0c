"""OpenPI's JAX checkpoints of a tiny model, as its modules have the arrays and orbax stores them, by tensorstore alone.

`tests/rlinf_isaac/checkpoint/convert/test_openpi_jax_parity.py` reads those that OpenPI's model and orbax wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from corpus.foreign import norm_stats_json

from rlinf_isaac.pi0.model import Pi0

Arrays = dict[str, np.ndarray]


def to_jax(model: Pi0) -> Arrays:
    """The weights of `model` as OpenPI's JAX model names, shapes and stacks them; paths joined by slashes."""
    vlm, expert = model.vlm, model.expert
    vision, config = vlm.vision_tower.vision_model, model.config
    heads, image = config.vision.num_heads, "PaliGemma/img/"
    block = f"{image}Transformer/encoderblock/"
    layers = vision.encoder.layers
    arrays = {
        f"{image}embedding/kernel": _array(vision.embeddings.patch_embedding.weight).transpose(2, 3, 1, 0),
        f"{image}embedding/bias": _array(vision.embeddings.patch_embedding.bias),
        f"{image}pos_embedding": _array(vision.embeddings.position_embedding.weight)[None],
        **_norm(f"{image}Transformer/encoder_norm", [vision.post_layernorm], stacked=False),
        **_norm(f"{block}LayerNorm_0", [layer.layer_norm1 for layer in layers]),
        **_norm(f"{block}LayerNorm_1", [layer.layer_norm2 for layer in layers]),
        **_dense(f"{block}MlpBlock_0/Dense_0", [layer.mlp.fc1 for layer in layers]),
        **_dense(f"{block}MlpBlock_0/Dense_1", [layer.mlp.fc2 for layer in layers]),
        **_dense(f"{image}head", [vlm.multi_modal_projector.linear], stacked=False),
    }
    attention = f"{block}MultiHeadDotProductAttention_0/"
    for name in ("query", "key", "value"):
        modules = [getattr(layer.self_attn, f"{name[0]}_proj") for layer in layers]
        kernels = [_array(module.weight).T.reshape(config.vision.width, heads, -1) for module in modules]
        arrays[f"{attention}{name}/kernel"] = np.stack(kernels)
        arrays[f"{attention}{name}/bias"] = np.stack([_array(module.bias).reshape(heads, -1) for module in modules])
    outs = [layer.self_attn.out_proj for layer in layers]
    arrays[f"{attention}out/kernel"] = np.stack(
        [_array(out.weight).T.reshape(heads, -1, out.out_features) for out in outs]
    )
    arrays[f"{attention}out/bias"] = np.stack([_array(out.bias) for out in outs])
    arrays["PaliGemma/llm/embedder/input_embedding"] = _array(vlm.language_model.embed_tokens.weight)
    for suffix, gemma, sizes in (("", vlm.language_model, config.vlm), ("_1", expert, config.expert)):
        arrays |= _gemma(suffix, gemma, sizes.num_heads, sizes.num_kv_heads)
    for head, module in model.named_children():
        if head != "paligemma_with_expert":
            arrays |= _dense(head, [module], stacked=False)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _gemma(suffix: str, gemma: torch.nn.Module, heads: int, kv_heads: int) -> Arrays:
    def einsum(weight: torch.Tensor, count: int) -> np.ndarray:
        return np.stack(np.split(_array(weight).T, count, axis=1))  # (heads, width, numbers)

    llm, layers = "PaliGemma/llm/", gemma.layers
    attention, mlp = f"{llm}layers/attn/", f"{llm}layers/mlp{suffix}/"
    own = [layer.self_attn for layer in layers]
    keys = [[einsum(each.k_proj.weight, kv_heads), einsum(each.v_proj.weight, kv_heads)] for each in own]
    outs = [np.stack(np.split(_array(each.o_proj.weight).T, heads)) for each in own]
    gates = [[_array(layer.mlp.gate_proj.weight).T, _array(layer.mlp.up_proj.weight).T] for layer in layers]
    return {
        f"{attention}q_einsum{suffix}/w": np.stack([einsum(each.q_proj.weight, heads) for each in own]),
        f"{attention}kv_einsum{suffix}/w": np.stack([np.stack(pair) for pair in keys]),
        f"{attention}attn_vec_einsum{suffix}/w": np.stack(outs),
        f"{mlp}gating_einsum": np.stack([np.stack(pair) for pair in gates]),
        f"{mlp}linear": np.stack([_array(layer.mlp.down_proj.weight).T for layer in layers]),
        **_norm(f"{llm}layers/pre_attention_norm{suffix}", [layer.input_layernorm for layer in layers]),
        **_norm(f"{llm}layers/pre_ffw_norm{suffix}", [layer.post_attention_layernorm for layer in layers]),
        **_norm(f"{llm}final_norm{suffix}", [gemma.norm], stacked=False),
    }


def _norm(name: str, modules: list[torch.nn.Module], *, stacked: bool = True) -> Arrays:
    if hasattr(modules[0], "dense"):
        return _dense(f"{name}/Dense_0", [module.dense for module in modules], stacked=stacked)
    arrays = {"scale": [_array(module.weight) for module in modules]}
    if getattr(modules[0], "bias", None) is not None:
        arrays["bias"] = [_array(module.bias) for module in modules]
    return {f"{name}/{leaf}": np.stack(each) if stacked else each[0] for leaf, each in arrays.items()}


def _dense(name: str, modules: list[torch.nn.Module], *, stacked: bool = True) -> Arrays:
    arrays = {"kernel": [_array(module.weight).T for module in modules], "bias": [_array(m.bias) for m in modules]}
    return {f"{name}/{leaf}": np.stack(each) if stacked else each[0] for leaf, each in arrays.items()}


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().numpy()


def save_orbax(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    *,
    ocdbt: bool = True,
    zarr3: bool = False,
    value: bool = False,
    chunked: bool = False,
) -> Path:
    """A directory as orbax's PyTreeCheckpointHandler writes it of ``{"params": arrays}``.

    Args:
        path: the directory to make.
        arrays: path joined by slashes -> array.
        ocdbt: in one database, as by default; else a directory each.
        zarr3: the newer format of an array.
        value: one level deeper, as a training's ``nnx.State`` is.
        chunked: each entry of the first axis in a chunk of its own, as where the first axis is sharded.
    """
    import tensorstore

    path.mkdir(parents=True)
    tree = {}
    for name, array in arrays.items():
        keys = ["params", *name.split("/"), *(["value"] if value else [])]
        tree[str(tuple(keys))] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in keys],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
        inner = f"{'.'.join(keys)}/"
        kvstore = {"driver": "file", "path": f"{path}/{inner}"}
        if ocdbt:
            kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path}/"}, "path": inner}
        driver = {"driver": "zarr3" if zarr3 else "zarr", "store_data_equal_to_fill_value": True}
        chunk = (1, *array.shape[1:]) if chunked else array.shape
        opened = tensorstore.open(
            driver | {"kvstore": kvstore},
            create=True,
            dtype=array.dtype,
            shape=array.shape,
            chunk_layout=tensorstore.ChunkLayout(chunk_shape=chunk),
        ).result()
        opened.write(array).result()
    metadata = {"tree_metadata": tree, "use_zarr3": zarr3, "store_array_data_equal_to_fill_value": True}
    (path / "_METADATA").write_text(json.dumps(metadata))
    return path


def save_jax_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], *robots: str, **others: bool) -> Path:
    """A published base: ``params`` and the statistics of `robots`."""
    save_orbax(path / "params", arrays, **others)
    for number, robot in enumerate(robots):
        (path / "assets" / robot).mkdir(parents=True)
        (path / "assets" / robot / "norm_stats.json").write_text(norm_stats_json(32, 32 + number))
    return path
