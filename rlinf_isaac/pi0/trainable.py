"""Which parameters of pi0 are trained (``sft.trainable``, ``rl.trainable``), by name. It imports no torch.

``all``
    Every parameter. OpenPI's default (``freeze_filter=nnx.Nothing``).
``expert``
    ``paligemma_with_expert.gemma_expert.model.*`` and the projections around it: ``action_in_proj``,
    ``action_out_proj``, for pi0 ``state_proj`` and ``action_time_mlp_{in,out}``, for pi0.5 ``time_mlp_{in,out}``.
    ``paligemma_with_expert.paligemma.*`` is frozen: vision tower, projector, language model. Equals RLinf's
    ``train_expert_only`` (``freeze_vlm`` of its OpenPI action model) and lerobot's ``train_expert_only``.
``lora``
    The adapters (`lora`), the vision tower, the projector and the projections listed under ``expert``. The part that
    OpenPI's JAX model calls ``llm`` is frozen: ``paligemma_with_expert.paligemma.{model.language_model,lm_head}.*``
    with the token embedding, and ``paligemma_with_expert.gemma_expert.*`` with its norms. Equals
    ``Pi0Config.get_freeze_filter`` for ``gemma_2b_lora`` with ``gemma_300m_lora`` (OpenPI, ``models/pi0_config.py``).

Without ``train_vision``, ``paligemma_with_expert.paligemma.model.vision_tower.*`` is frozen in any case (lerobot's
``freeze_vision_encoder``). The action expert's ``lm_head``, which nothing reads, counts as trained only with ``all``.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlinf_isaac.config.rl_schema import RlConfig
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


def is_trained(name: str, config: SftConfig | RlConfig) -> bool:
    """Whether the parameter of this name is trained. The name must not be that of an adapter."""
    if config.trainable == "expert":
        return not name.startswith((VLM, f"{EXPERT}lm_head."))
    if name.startswith(VISION):
        return config.train_vision
    return config.trainable == "all" or not name.startswith((*LANGUAGE, EXPERT))


def needs_base(config: SftConfig) -> bool:
    """Whether some parameters are frozen, so that training needs a base: without one they would stay random."""
    return config.trainable != "all" or not config.train_vision


def adapted_layers(config: JobConfig) -> Iterator[tuple[str, int, float]]:
    """Every linear layer that gets an adapter: its name in the model, rank, and alpha."""
    lora: LoraConfig = config.sft.lora
    vlm, expert = f"{VLM}model.language_model.", f"{EXPERT}model."
    for prefix, rank, alpha in ((vlm, lora.vlm_rank, lora.vlm_alpha), (expert, lora.expert_rank, lora.expert_alpha)):
        for index in range(config.model.vlm.depth):
            yield from ((f"{prefix}layers.{index}.{name}", rank, alpha) for name in ADAPTED)
