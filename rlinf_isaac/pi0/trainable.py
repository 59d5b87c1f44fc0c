"""Which parameters of pi0 a fine-tuning changes (``sft.trainable``), by name. No torch.

``all``
    Every parameter. OpenPI's default (``freeze_filter=nnx.Nothing``).
``expert``
    ``paligemma_with_expert.gemma_expert.model.*`` and the projections around it: ``action_in_proj``,
    ``action_out_proj``, for pi0 ``state_proj`` and ``action_time_mlp_{in,out}``, for pi0.5 ``time_mlp_{in,out}``.
    Frozen is ``paligemma_with_expert.paligemma.*``: vision tower, projector, language model. RLinf's
    ``train_expert_only`` (``freeze_vlm`` of its OpenPI action model); lerobot's has the same name.
``lora``
    The adapters (`lora`), the vision tower, the projector behind it and the projections of ``expert``. Frozen is what
    OpenPI's JAX model calls ``llm``: ``paligemma_with_expert.paligemma.{model.language_model,lm_head}.*`` with the
    token embedding, and ``paligemma_with_expert.gemma_expert.*`` with its norms. OpenPI, ``models/pi0_config.py``:
    ``Pi0Config.get_freeze_filter`` of ``gemma_2b_lora`` with ``gemma_300m_lora``.

Without ``sft.train_vision``, ``paligemma_with_expert.paligemma.model.vision_tower.*`` is frozen in any case (lerobot's
``freeze_vision_encoder``). The action expert's ``lm_head``, which nothing reads, counts as trained only with ``all``.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.sft_schema import LoraConfig, SftConfig

VLM = "paligemma_with_expert.paligemma."
EXPERT = "paligemma_with_expert.gemma_expert."
VISION = f"{VLM}model.vision_tower."
LANGUAGE = (f"{VLM}model.language_model.", f"{VLM}lm_head.")
ADAPTED = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
"""Linear layers of a Gemma layer that have adapters, as OpenPI's ``lora_configs`` of attention and feed-forward."""


def is_trained(name: str, config: SftConfig) -> bool:
    """Whether the parameter of this name, which is no adapter, trains."""
    if config.trainable == "expert":
        return not name.startswith((VLM, f"{EXPERT}lm_head."))
    if name.startswith(VISION):
        return config.train_vision
    return config.trainable == "all" or not name.startswith((*LANGUAGE, EXPERT))


def needs_base(config: SftConfig) -> bool:
    """Whether something is frozen that would be random without a base."""
    return config.trainable != "all" or not config.train_vision


def adapted_layers(config: JobConfig) -> Iterator[tuple[str, int, float]]:
    """Every linear layer that gets an adapter: its name in the model, rank, and alpha."""
    lora: LoraConfig = config.sft.lora
    vlm, expert = f"{VLM}model.language_model.", f"{EXPERT}model."
    for prefix, rank, alpha in ((vlm, lora.vlm_rank, lora.vlm_alpha), (expert, lora.expert_rank, lora.expert_alpha)):
        for index in range(config.model.vlm.depth):
            yield from ((f"{prefix}layers.{index}.{name}", rank, alpha) for name in ADAPTED)
