"""What OpenPI writes beside its weights, and what its code decides.

``config.json`` of examples/convert_jax_model_to_pytorch.py: {action_dim, action_horizon, paligemma_variant,
action_expert_variant, precision}. RLinf's copy of that script writes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlinf_isaac.checkpoint.foreign.said.entries import Entries
from rlinf_isaac.checkpoint.foreign.said.statements import Statements

NORM_RULE = "OpenPI's rule: z-score for pi0, quantiles for pi0.5"
TOKENIZER_RULE = "OpenPI's rule: PaliGemma's"

_SIZES = ("width", "depth", "mlp_dim", "num_heads", "num_kv_heads", "head_dim")
VARIANTS = {
    "dummy": (64, 4, 128, 8, 1, 16),
    "gemma_300m": (1024, 18, 4096, 8, 1, 256),
    "gemma_2b": (2048, 18, 16384, 8, 1, 256),
}
"""OpenPI's names of Gemma's sizes (models/gemma.py), in the order of `GemmaConfig`; each may end in ``_lora``."""


def is_openpi(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is OpenPI's."""
    return {"action_horizon", "paligemma_variant"} <= values.keys() and "type" not in values


def read_openpi(values: Mapping[str, Any], place: str, found: Statements) -> None:
    """Enter what a ``config.json`` of OpenPI says. It does not say whether the model is pi0 or pi0.5: names do."""
    entries = Entries(place, values)
    found.say("model.action_dim", entries.count("action_dim"), f"{place}: action_dim")
    found.say("model.action_horizon", entries.count("action_horizon"), f"{place}: action_horizon")
    # Not of the script, but of Pi0Config: a person or a newer script may add them.
    found.say("model.max_token_len", entries.count("max_token_len"), f"{place}: max_token_len")
    found.say("model.discrete_state_input", entries.flag("discrete_state_input"), f"{place}: discrete_state_input")
    found.say("model.pi05", entries.flag("pi05"), f"{place}: pi05")
    read_variants(entries, found)
    found.problems += entries.problems


def read_variants(entries: Entries, found: Statements) -> None:
    """Enter the sizes that ``paligemma_variant`` and ``action_expert_variant`` stand for."""
    choices = [*VARIANTS, *(f"{name}_lora" for name in VARIANTS)]
    for key, section in (("paligemma_variant", "model.vlm"), ("action_expert_variant", "model.expert")):
        variant = entries.word(key, choices)
        if variant is not None:
            for name, size in zip(_SIZES, VARIANTS[variant.removesuffix("_lora")], strict=True):
                found.say(f"{section}.{name}", size, f"{entries.place}: {key}")


def say_rules(found: Statements) -> None:
    """Enter what OpenPI's code decides for every checkpoint that it, or RLinf with it, has trained."""
    found.say("policy.norm", "auto", NORM_RULE)
    found.tokenizer = found.tokenizer or TOKENIZER_RULE
