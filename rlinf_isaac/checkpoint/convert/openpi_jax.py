"""Maps the layout of OpenPI's JAX model to the names and shapes of its PyTorch model. No values are read here.

    params/PaliGemma/img/Transformer/encoderblock/...       the layers of the vision tower, stacked along a first axis
    params/PaliGemma/llm/layers/{attn,mlp,...}              the layers of Gemma, likewise; names in _1 are the expert's
    params/{action_in_proj,time_mlp_in,state_proj,...}      as in the PyTorch model

A training saves every array one level deeper, under the name ``value``. A linear layer of JAX computes x @ kernel, one
of torch x @ weight.T. JAX's attention has separate axes for the heads and for the numbers of a head; torch joins them.

LoRA (``lora_a``, ``lora_b``) is merged into its weight, w + a b, which is what OpenPI's model computes. The scale of
LoRA, alpha / rank, is not stored. It is 1 in all of OpenPI's variants, and OpenPI's MLPs do not apply it at all. In
``attn_vec_einsum`` each of the two factors is summed over the heads by itself: the einsum "BTNH,NHL->BTL" is followed
by "BTL,NLD->BTD".

Source: https://github.com/Physical-Intelligence/openpi, examples/convert_jax_model_to_pytorch.py (the same map for the
full size), src/openpi/models/{pi0,gemma,siglip,lora}.py (the modules).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from rlinf_isaac.checkpoint.convert.orbax import OrbaxArray
from rlinf_isaac.checkpoint.convert.tensors import ComputedTensor, Keys

if TYPE_CHECKING:
    import numpy as np

NAME = "openpi_jax"
_VLM = "paligemma_with_expert.paligemma."
_EXPERTS = {"": _VLM + "model.language_model.", "_1": "paligemma_with_expert.gemma_expert.model."}
_VISION = _VLM + "model.vision_tower.vision_model."
_ANY = ("action_in_proj", "action_out_proj")
_HEADS = (*_ANY, "time_mlp_in", "time_mlp_out", "state_proj", "action_time_mlp_in", "action_time_mlp_out")
_MOST_LAYERS = 1000


class AxisLayout(NamedTuple):
    """How the array of one layer becomes a tensor: its axes in this order are joined in groups of these sizes."""

    axes: tuple[int, ...]
    groups: tuple[int, ...]

    def shape(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the tensor, from the shape of the array."""
        result, axes = [], list(self.axes)
        for group in self.groups:
            size = 1
            for _ in range(group):
                size *= sizes[axes.pop(0)]
            result.append(size)
        return tuple(result)


VECTOR = AxisLayout((0,), (1,))
MATRIX = AxisLayout((0, 1), (1, 1))
LINEAR = AxisLayout((1, 0), (1, 1))
CONVOLUTION = AxisLayout((3, 2, 0, 1), (1, 1, 1, 1))
PLACES = AxisLayout((0, 1, 2), (2, 1))  # (1, patches, width)
HEAD_BIAS = AxisLayout((0, 1), (2,))  # (heads, numbers)
INTO_HEADS = AxisLayout((1, 2, 0), (2, 1))  # (width, heads, numbers)
EINSUM_INTO_HEADS = AxisLayout((0, 2, 1), (2, 1))  # (heads, width, numbers)
OUT_OF_HEADS = AxisLayout((2, 0, 1), (1, 2))  # (heads, numbers, width)


class Rule(NamedTuple):
    """How one array becomes tensors.

    Attributes:
        name: name of the tensor. If the array holds several layers, ``{}`` stands for the number of the layer.
        axis_layout: how each part of the array becomes a tensor.
        parts: names of the entries of the axis that follows; each replaces ``|`` in `name`.
    """

    name: str
    axis_layout: AxisLayout
    parts: tuple[str, ...] = ()


def to_openpi(arrays: Mapping[Keys, OrbaxArray]) -> dict[Keys, ComputedTensor]:
    """Maps (OpenPI's name,) to the tensor. An array that is no part of the model keeps its path, joined by slashes.

    Args:
        arrays: path of an array in the tree -> the array.
    """
    params = {path[1:]: array for path, array in arrays.items() if path[0] == "params"} or dict(arrays)
    if all(path[-1] == "value" for path in params):
        params = {path[:-1]: array for path, array in params.items()}
    rules = _rules()
    found: dict[Keys, ComputedTensor] = {}
    pairs = {path: pair for path in params if path in rules and (pair := _adapter_of(path, params)) is not None}
    merged = {id(factor) for pair in pairs.values() for factor in pair}
    for path, array in params.items():
        if id(array) in merged:
            continue
        tensors = dict(_tensors(rules[path], array, pairs.get(path))) if path in rules else {}
        found |= {(name,): tensor for name, tensor in tensors.items()}
        if not tensors:
            found["/".join(path),] = _tensor(
                array, (), AxisLayout(tuple(range(len(array.shape))), (1,) * len(array.shape))
            )
    return found


def merged_adapters(arrays: Mapping[Keys, OrbaxArray]) -> int:
    """The number of arrays that have adapters of LoRA."""
    return sum(any(part.endswith("lora_a") for part in path) for path in arrays)


def _rules() -> dict[Keys, Rule]:
    rules: dict[Keys, Rule] = {(head, "kernel"): Rule(f"{head}.weight", LINEAR) for head in _HEADS}
    rules |= {(head, "bias"): Rule(f"{head}.bias", VECTOR) for head in _HEADS}
    image = {
        "embedding/kernel": Rule(f"{_VISION}embeddings.patch_embedding.weight", CONVOLUTION),
        "embedding/bias": Rule(f"{_VISION}embeddings.patch_embedding.bias", VECTOR),
        "pos_embedding": Rule(f"{_VISION}embeddings.position_embedding.weight", PLACES),
        "head/kernel": Rule(f"{_VLM}model.multi_modal_projector.linear.weight", LINEAR),
        "head/bias": Rule(f"{_VLM}model.multi_modal_projector.linear.bias", VECTOR),
        "Transformer/encoder_norm/scale": Rule(f"{_VISION}post_layernorm.weight", VECTOR),
        "Transformer/encoder_norm/bias": Rule(f"{_VISION}post_layernorm.bias", VECTOR),
    }
    block, layer = "Transformer/encoderblock/", f"{_VISION}encoder.layers.{{}}."
    for number in (0, 1):
        image |= {
            f"{block}LayerNorm_{number}/scale": Rule(f"{layer}layer_norm{number + 1}.weight", VECTOR),
            f"{block}LayerNorm_{number}/bias": Rule(f"{layer}layer_norm{number + 1}.bias", VECTOR),
            f"{block}MlpBlock_0/Dense_{number}/kernel": Rule(f"{layer}mlp.fc{number + 1}.weight", LINEAR),
            f"{block}MlpBlock_0/Dense_{number}/bias": Rule(f"{layer}mlp.fc{number + 1}.bias", VECTOR),
        }
    attention = f"{block}MultiHeadDotProductAttention_0/"
    for name in ("query", "key", "value"):
        image[f"{attention}{name}/kernel"] = Rule(f"{layer}self_attn.{name[0]}_proj.weight", INTO_HEADS)
        image[f"{attention}{name}/bias"] = Rule(f"{layer}self_attn.{name[0]}_proj.bias", HEAD_BIAS)
    image[f"{attention}out/kernel"] = Rule(f"{layer}self_attn.out_proj.weight", OUT_OF_HEADS)
    image[f"{attention}out/bias"] = Rule(f"{layer}self_attn.out_proj.bias", VECTOR)
    text = {"embedder/input_embedding": Rule(f"{_VLM}lm_head.weight", MATRIX)}
    for suffix, gemma in _EXPERTS.items():
        text |= _gemma(suffix, gemma)
    for prefix, group in (("img", image), ("llm", text)):
        rules |= {("PaliGemma", prefix, *path.split("/")): rule for path, rule in group.items()}
    return rules


def _gemma(suffix: str, gemma: str) -> dict[str, Rule]:
    layer = f"{gemma}layers.{{}}."
    rules = {
        f"layers/attn/q_einsum{suffix}/w": Rule(f"{layer}self_attn.q_proj.weight", EINSUM_INTO_HEADS),
        f"layers/attn/kv_einsum{suffix}/w": Rule(f"{layer}self_attn.|_proj.weight", EINSUM_INTO_HEADS, ("k", "v")),
        f"layers/attn/attn_vec_einsum{suffix}/w": Rule(f"{layer}self_attn.o_proj.weight", OUT_OF_HEADS),
        f"layers/mlp{suffix}/gating_einsum": Rule(f"{layer}mlp.|_proj.weight", LINEAR, ("gate", "up")),
        f"layers/mlp{suffix}/linear": Rule(f"{layer}mlp.down_proj.weight", LINEAR),
    }
    for path, name in (
        (f"layers/pre_attention_norm{suffix}", f"{layer}input_layernorm"),
        (f"layers/pre_ffw_norm{suffix}", f"{layer}post_attention_layernorm"),
        (f"final_norm{suffix}", f"{gemma}norm"),
    ):
        rules[f"{path}/scale"] = Rule(f"{name}.weight", VECTOR)
        rules[f"{path}/Dense_0/kernel"] = Rule(f"{name}.dense.weight", LINEAR)
        rules[f"{path}/Dense_0/bias"] = Rule(f"{name}.dense.bias", VECTOR)
    return rules


def _tensors(
    rule: Rule, array: OrbaxArray, pair: tuple[OrbaxArray, OrbaxArray] | None
) -> Iterator[tuple[str, ComputedTensor]]:
    """Yield the tensors of an array, or nothing if its shape contradicts the rule."""
    layered, several = "{}" in rule.name, bool(rule.parts)
    sizes = array.shape
    if len(sizes) != layered + several + len(rule.axis_layout.axes) or (layered and sizes[0] > _MOST_LAYERS):
        return
    if several and sizes[layered] != len(rule.parts):
        return
    for number in range(sizes[0]) if layered else (None,):
        first = () if number is None else (number,)
        for place, part in enumerate(rule.parts) if several else ((None, ""),):
            index = first if place is None else (*first, place)
            yield rule.name.replace("|", part).format(number), _tensor(array, index, rule.axis_layout, pair)


def _tensor(
    array: OrbaxArray,
    index: tuple[int, ...],
    axis_layout: AxisLayout,
    pair: tuple[OrbaxArray, OrbaxArray] | None = None,
) -> ComputedTensor:
    shape = axis_layout.shape(array.shape[len(index) :])

    def read() -> np.ndarray:
        values = array.read(index)
        if pair is not None:
            values = _merged(values, *(each.read(index) for each in pair), summed=axis_layout is OUT_OF_HEADS)
        return values.transpose(axis_layout.axes).reshape(shape)

    return ComputedTensor(array.dtype, shape, (array.name, *index), read, array.store.files)


def _merged(values: np.ndarray, a: np.ndarray, b: np.ndarray, *, summed: bool) -> np.ndarray:
    """w + a b, computed in float32 and rounded once. With `summed`, b is summed over the heads, its first axis."""
    b = b.astype("f4")
    merged = values.astype("f4") + a.astype("f4") @ (b.sum(0) if summed else b)
    return cast("np.ndarray", merged.astype(values.dtype))


def _adapter_of(path: Keys, arrays: Mapping[Keys, OrbaxArray]) -> tuple[OrbaxArray, OrbaxArray] | None:
    """The two factors of LoRA for the array at `path`, of shapes (..., rows, rank) and (..., rank, columns)."""
    stem = "" if path[-1] == "w" else f"{path[-1]}_"
    a, b = (arrays.get((*path[:-1], f"{stem}lora_{letter}")) for letter in "ab")
    if a is None or b is None or len(arrays[path].shape) < 2:
        return None
    *outer, rows, columns = arrays[path].shape
    fits = a.shape[:-1] == (*outer, rows) and b.shape == (*outer, a.shape[-1], columns)
    return (a, b) if fits else None
