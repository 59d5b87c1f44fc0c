"""Reads what RLinf records about its own pi0 models, ``openpi_rlinf``: beside the weights, and in the run's config.

The ``config.json`` of its converters (rlinf/utils/ckpt_convertor/openpi/{pt_to_safetensors,jax_to_openpi_rlinf}.py) is
{action_dim, action_horizon, max_token_len, paligemma_variant, action_expert_variant, pi05, discrete_state_input, pcd,
dtype}. RLinf itself does not read this file: it builds the model from the run's YAML
(models/embodiment/openpi_rlinf/__init__.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlinf_isaac.checkpoint.foreign.said.entries import Entries
from rlinf_isaac.checkpoint.foreign.said.openpi import read_openpi, read_variants
from rlinf_isaac.checkpoint.foreign.said.statements import Statements

MODEL_TYPE = "openpi_rlinf"
_TOKENS = {False: 48, True: 200}
_OPTIONS = {"action_horizon": "--action-horizon", "max_token_len": "--max-token-len"}


def is_openpi_rlinf_config(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is of RLinf's converters, which add ``pcd`` to OpenPI's entries."""
    return {"action_horizon", "paligemma_variant", "pcd"} <= values.keys() and "type" not in values


def read_openpi_rlinf(values: Mapping[str, Any], place: str, statements: Statements) -> None:
    """Read a ``config.json`` of RLinf's converters."""
    statements.writer = "rlinf"
    read_openpi(values, place, statements)
    entries = Entries(place, values)
    if entries.flag("pcd"):
        cause = f"{place}: pcd is true: the model reads point clouds, which the policy here does not support"
        statements.refuse(cause, "evaluate it in RLinf, or name the weights of a model trained without point clouds")
    if "discrete_state_input" not in entries:
        # The converter of JAX weights cannot know these values: it writes its options or their defaults.
        for key, option in _OPTIONS.items():
            if f"model.{key}" in statements.values:
                remark = f"{place}: {key} {values[key]} is what RLinf's converter was told by {option}, or its default"
                statements.doubt(f"model.{key}", remark)
    statements.problems += entries.problems


def read_openpi_rlinf_run(model: Mapping[str, Any], place: str, statements: Statements) -> None:
    """Read ``actor.model`` in the config of a run that trained such a model.

    Args:
        model: its entries.
        place: its name in messages.
        statements: the settings and problems are added to it.
    """
    outer = Entries(place, model)
    entries = Entries(f"{place}.openpi", outer.inner("openpi") or {})
    is_set = "pi05" in outer
    pi05 = outer.flag("pi05") if is_set else True
    statements.say("model.pi05", pi05, f"{place}.pi05" if is_set else f"{place}, which is pi0.5 if pi05 is not set")
    # RLinf has one number for the predicted actions and for those of them that are executed.
    chunk = outer.count("num_action_chunks")
    statements.say("model.action_horizon", chunk, f"{place}.num_action_chunks")
    statements.say("policy.action_chunk", chunk, f"{place}.num_action_chunks")
    statements.say("policy.denoise_steps", outer.count("num_steps"), f"{place}.num_steps")
    statements.say("model.action_dim", entries.count("model_action_dim"), f"{place}.openpi.model_action_dim")
    tokens = entries.count("max_token_len") or (None if pi05 is None else _TOKENS[pi05])
    statements.say("model.max_token_len", tokens, f"{place}.openpi.max_token_len")
    statements.say(
        "model.discrete_state_input", entries.flag("discrete_state_input"), f"{place}.openpi.discrete_state_input"
    )
    read_variants(entries, statements)
    statements.problems += [*outer.problems, *entries.problems]
