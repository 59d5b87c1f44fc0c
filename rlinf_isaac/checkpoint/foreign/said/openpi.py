"""Reads the ``config.json`` that OpenPI writes beside its weights, and adds the rules that OpenPI's code applies.

The ``config.json`` of examples/convert_jax_model_to_pytorch.py is {action_dim, action_horizon, paligemma_variant,
action_expert_variant, precision}. RLinf's copy of that script writes the same entries.
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
"""OpenPI's names for sizes of Gemma (models/gemma.py), in the order of `GemmaConfig`; each may end in ``_lora``."""


def is_openpi(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is OpenPI's."""
    return {"action_horizon", "paligemma_variant"} <= values.keys() and "type" not in values


def read_openpi(values: Mapping[str, Any], place: str, statements: Statements) -> None:
    """Read a ``config.json`` of OpenPI. It need not say whether the model is pi0 or pi0.5: the tensor names show it."""
    entries = Entries(place, values)
    statements.say("model.action_dim", entries.count("action_dim"), f"{place}: action_dim")
    statements.say("model.action_horizon", entries.count("action_horizon"), f"{place}: action_horizon")
    # The script does not write these entries of Pi0Config, but a person or a newer script may add them.
    statements.say("model.max_token_len", entries.count("max_token_len"), f"{place}: max_token_len")
    statements.say("model.discrete_state_input", entries.flag("discrete_state_input"), f"{place}: discrete_state_input")
    statements.say("model.pi05", entries.flag("pi05"), f"{place}: pi05")
    read_variants(entries, statements)
    statements.problems += entries.problems


def read_variants(entries: Entries, statements: Statements) -> None:
    """Enter the sizes that ``paligemma_variant`` and ``action_expert_variant`` name."""
    choices = [*VARIANTS, *(f"{name}_lora" for name in VARIANTS)]
    for key, section in (("paligemma_variant", "model.vlm"), ("action_expert_variant", "model.expert")):
        variant = entries.word(key, choices)
        if variant is not None:
            for name, size in zip(_SIZES, VARIANTS[variant.removesuffix("_lora")], strict=True):
                statements.say(f"{section}.{name}", size, f"{entries.place}: {key}")


def say_rules(statements: Statements) -> None:
    """Enter the normalisation and tokenizer of every checkpoint that OpenPI, or RLinf with OpenPI's code, trained."""
    statements.say("policy.norm", "auto", NORM_RULE)
    statements.tokenizer = statements.tokenizer or TOKENIZER_RULE
