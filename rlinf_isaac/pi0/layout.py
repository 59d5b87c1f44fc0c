"""Names and shapes of pi0's state dict, computed without torch: what a checkpoint of an architecture must hold.

They equal those of `rlinf_isaac.pi0.model.Pi0` and of OpenPI's PyTorch model (778 names for pi0, 813 for pi0.5,
including the tied one), so that the headers of a checkpoint's files suffice to check it and to recognise its
architecture.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlinf_isaac.config.schema import GemmaConfig, ModelConfig, VisionConfig

Entry = tuple[str, tuple[int, ...]]

_VLM = "paligemma_with_expert.paligemma."
_EXPERT = "paligemma_with_expert.gemma_expert."

TIED = ((_VLM + "model.language_model.embed_tokens.weight", _VLM + "lm_head.weight"),)
"""Pairs of names that share one tensor. OpenPI's files hold the second name of each pair."""

UNREAD = (_EXPERT + "lm_head.weight",)
"""Parameters that no computation reads: the action expert never predicts tokens. OpenPI's files contain them with their
initial values; where they are missing, zeros do as well."""

OPTIONAL_PREFIXES = ("value_head.", "noise_head.")
"""Prefixes of the additional names in a checkpoint of reinforcement learning: critic and exploration noise. Choosing
actions does not need them, so loading a policy skips these names without looking at their shapes."""

KEPT_IN_FLOAT32 = (
    "vision_tower.vision_model.embeddings.",
    "input_layernorm",
    "post_attention_layernorm",
    "model.norm",
)
"""Substrings of the names of transformer parameters that OpenPI keeps in float32: patch and position embeddings and
Gemma's norms; for pi0.5 this includes the layers that compute the norms' scales. Source:
``to_bfloat16_for_selected_params`` in OpenPI's ``gemma_pytorch.py``. ``model.norm`` also matches
``language_model.norm``."""


def state_dict_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every entry of the state dict of ``Pi0(model)``, including tied entries, in no fixed order."""
    vlm, expert = model.vlm, model.expert
    return dict(
        [
            *_vision(_VLM + "model.vision_tower.vision_model.", model.vision),
            *_linear(_VLM + "model.multi_modal_projector.linear", model.vision.width, vlm.width),
            (_VLM + "model.language_model.embed_tokens.weight", (model.vocab_size, vlm.width)),
            *_gemma(_VLM + "model.language_model.", vlm, adaptive=False),
            (_VLM + "lm_head.weight", (model.vocab_size, vlm.width)),
            *_gemma(_EXPERT + "model.", expert, adaptive=model.pi05),
            (_EXPERT + "lm_head.weight", (model.vocab_size, expert.width)),
            *_heads(model),
        ]
    )


def _heads(model: ModelConfig) -> Iterator[Entry]:
    """The projections between actions, time, state (pi0 only) and the expert's tokens."""
    width = model.expert.width
    yield from _linear("action_in_proj", model.action_dim, width)
    yield from _linear("action_out_proj", width, model.action_dim)
    if model.pi05:
        yield from _linear("time_mlp_in", width, width)
        yield from _linear("time_mlp_out", width, width)
    else:
        yield from _linear("state_proj", model.action_dim, width)
        yield from _linear("action_time_mlp_in", 2 * width, width)
        yield from _linear("action_time_mlp_out", width, width)


def _gemma(prefix: str, config: GemmaConfig, *, adaptive: bool) -> Iterator[Entry]:
    """Entries of the layers and the final norm. `adaptive` is for pi0.5's expert."""
    width = config.width
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    for index in range(config.depth):
        layer = f"{prefix}layers.{index}."
        for name, inputs, outputs in (
            ("self_attn.q_proj", width, queries),
            ("self_attn.k_proj", width, keys),
            ("self_attn.v_proj", width, keys),
            ("self_attn.o_proj", queries, width),
            ("mlp.gate_proj", width, config.mlp_dim),
            ("mlp.up_proj", width, config.mlp_dim),
            ("mlp.down_proj", config.mlp_dim, width),
        ):
            yield f"{layer}{name}.weight", (outputs, inputs)
        yield from _norm(layer + "input_layernorm", width, adaptive)
        yield from _norm(layer + "post_attention_layernorm", width, adaptive)
    yield from _norm(prefix + "norm", width, adaptive)


def _norm(name: str, width: int, adaptive: bool) -> Iterator[Entry]:
    if adaptive:
        yield from _linear(f"{name}.dense", width, 3 * width)
    else:
        yield f"{name}.weight", (width,)


def _vision(prefix: str, config: VisionConfig) -> Iterator[Entry]:
    width, patch = config.width, config.patch_size
    yield prefix + "embeddings.patch_embedding.weight", (width, 3, patch, patch)
    yield prefix + "embeddings.patch_embedding.bias", (width,)
    yield prefix + "embeddings.position_embedding.weight", ((config.image_size // patch) ** 2, width)
    for index in range(config.depth):
        layer = f"{prefix}encoder.layers.{index}."
        yield from _layer_norm(layer + "layer_norm1", width)
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}self_attn.{projection}", width, width)
        yield from _layer_norm(layer + "layer_norm2", width)
        yield from _linear(layer + "mlp.fc1", width, config.mlp_dim)
        yield from _linear(layer + "mlp.fc2", config.mlp_dim, width)
    yield from _layer_norm(prefix + "post_layernorm", width)


def _layer_norm(name: str, width: int) -> Iterator[Entry]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, inputs: int, outputs: int) -> Iterator[Entry]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)
