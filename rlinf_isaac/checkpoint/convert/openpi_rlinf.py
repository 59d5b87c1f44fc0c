"""Maps ``openpi_rlinf``, the layout of RLinf's own pi0 and pi0.5, to OpenPI's names. It does not need torch.

RLinf has saved and uploaded models in this layout since 0.4:

    img.stem, img.pos_embedding (1, patches, width), img.encoder.layers.N.{norm1, attn, norm2, mlp}, img.head
    llm.embedder.embedding, llm.layers.N.{attn.q_proj.E, mlps.E.w_gating, pre_attention_norms.E.scale, ...}
    action_in_proj, ... have the same names in OpenPI

E is 0 for the language model and 1 for the action expert. The queries, keys and values of the vision tower are rows of
one matrix, ``in_proj``. The gate and the up projection of an MLP are one array (2, inputs, outputs); OpenPI's linear
layers hold the transposed matrices. In both layouts a norm holds its scale minus one. The expert's ``lm_head``, which
nothing reads, is missing.

RLinf's modules use the exact GELU. OpenPI's, in JAX and in PyTorch, and the policy of this project use the tanh
approximation. A model that RLinf trained therefore gives nearly, but not exactly, the same actions here.

Source: https://github.com/RLinf/RLinf, rlinf/models/embodiment/openpi_rlinf/pi0_model/{pi0,gemma,siglip}.py (the
modules) and rlinf/utils/ckpt_convertor/openpi/openpi_rlinf_to_openpi_pytorch.py (the same map).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from rlinf_isaac.checkpoint.convert.tensors import AnyDense
from rlinf_isaac.checkpoint.convert.views import entry, narrow, transpose
from rlinf_isaac.checkpoint.coverage import RLINF_PREFIXES
from rlinf_isaac.ground.errors import WeightsError

NAME = "openpi_rlinf"

_VLM = "paligemma_with_expert.paligemma."
_VISION = _VLM + "model.vision_tower.vision_model."
_EXPERTS = (_VLM + "model.language_model.", "paligemma_with_expert.gemma_expert.model.")
_ANY = ("action_in_proj", "action_out_proj")
_HEADS = (*_ANY, "time_mlp_in", "time_mlp_out", "state_proj", "action_time_mlp_in", "action_time_mlp_out")
_MODULES = {
    "img.stem": _VISION + "embeddings.patch_embedding",
    "img.encoder.norm": _VISION + "post_layernorm",
    "img.head": _VLM + "model.multi_modal_projector.linear",
    "llm.embedder.embedding": _VLM + "lm_head",
    **{head: head for head in _HEADS},
}
_OF_VISION = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_OF_GEMMA = {f"attn.{letter}_proj": f"self_attn.{letter}_proj" for letter in "qkvo"}
_NORMS = {"pre_attention_norms": "input_layernorm", "pre_ffw_norms": "post_attention_layernorm"}
_SHOWN = 5

Named = Iterator[tuple[str, AnyDense]]


def is_openpi_rlinf(names: Iterable[str]) -> bool:
    """Whether names (without wrappers) belong to this layout."""
    return any(name.startswith(RLINF_PREFIXES) for name in names)


def to_openpi(tensors: Mapping[str, AnyDense], source: str) -> dict[str, tuple[str, AnyDense]]:
    """Maps OpenPI's name to the name in the file and the tensor. Each tensor is a view of a stored one; none is read.

    Args:
        tensors: name without wrappers -> tensor.
        source: name of the checkpoint in messages.

    Raises:
        WeightsError: ``rlinf-layout``, RLinf's pi0 does not have some of the names or shapes.
    """
    found: dict[str, tuple[str, AnyDense]] = {}
    unknown = []
    for name, tensor in tensors.items():
        own = {openpi: (name, view) for openpi, view in _openpi_of(name, tensor)}
        found |= own
        if not own:
            unknown.append(f"{name} {list(tensor.shape)}")
    if unknown:
        shown = ", ".join(unknown[:_SHOWN]) + (f" and {len(unknown) - _SHOWN} more" if unknown[_SHOWN:] else "")
        cause = (
            f"{source} has the layout of RLinf's openpi_rlinf models, and tensors that its pi0 does not have: {shown}"
        )
        cure = "leave out what is not needed with --exclude, such as --exclude 'pointnet.*'; or name the weights of pi0"
        raise WeightsError.of("rlinf-layout", cause, cure)
    return found


def _openpi_of(name: str, tensor: AnyDense) -> Named:
    module, _, leaf = name.rpartition(".")
    if module in _MODULES and leaf in ("weight", "bias"):
        yield f"{_MODULES[module]}.{leaf}", tensor
    elif name == "img.pos_embedding" and len(tensor.shape) == 3 and tensor.shape[0] == 1:
        yield f"{_VISION}embeddings.position_embedding.weight", entry(tensor, 0, 0)
    elif match := re.fullmatch(r"img\.encoder\.layers\.(\d+)\.(.+)", name):
        yield from _of_vision(f"{_VISION}encoder.layers.{match[1]}.", match[2], tensor)
    elif match := re.fullmatch(r"llm\.layers\.(\d+)\.(.+)\.([01])\.(.+)", name):
        yield from _of_gemma(f"{_EXPERTS[int(match[3])]}layers.{match[1]}.", match[2], match[4], tensor)
    elif match := re.fullmatch(r"llm\.final_norms\.([01])\.(.+)", name):
        yield from _norm(f"{_EXPERTS[int(match[1])]}norm", match[2], tensor)


def _of_vision(layer: str, name: str, tensor: AnyDense) -> Named:
    module, _, leaf = name.rpartition(".")
    if module in _OF_VISION and leaf in ("weight", "bias"):
        yield f"{layer}{_OF_VISION[module]}.{leaf}", tensor
    elif name in ("attn.in_proj_weight", "attn.in_proj_bias") and tensor.shape and tensor.shape[0] % 3 == 0:
        rows = tensor.shape[0] // 3
        for place, letter in enumerate("qkv"):
            yield f"{layer}self_attn.{letter}_proj.{name.rpartition('_')[2]}", narrow(tensor, 0, place * rows, rows)


def _of_gemma(layer: str, module: str, leaf: str, tensor: AnyDense) -> Named:
    """Yield the tensors of a layer's module; `leaf` is the part of the name after the number of the expert."""
    if module in _OF_GEMMA and leaf == "weight":
        yield f"{layer}{_OF_GEMMA[module]}.weight", tensor
    elif module in _NORMS:
        yield from _norm(layer + _NORMS[module], leaf, tensor)
    elif (module, leaf) == ("mlps", "w_linear") and len(tensor.shape) == 2:
        yield f"{layer}mlp.down_proj.weight", transpose(tensor, (1, 0))
    elif (module, leaf) == ("mlps", "w_gating") and len(tensor.shape) == 3 and tensor.shape[0] == 2:
        for place, projection in enumerate(("gate_proj", "up_proj")):
            yield f"{layer}mlp.{projection}.weight", transpose(entry(tensor, 0, place), (1, 0))


def _norm(norm: str, leaf: str, tensor: AnyDense) -> Named:
    if leaf == "scale":
        yield f"{norm}.weight", tensor
    elif leaf in ("ada_modulation.weight", "ada_modulation.bias"):
        yield f"{norm}.dense.{leaf.rpartition('.')[2]}", tensor
