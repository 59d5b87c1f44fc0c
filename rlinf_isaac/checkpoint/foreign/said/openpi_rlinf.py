"""What RLinf says of its own pi0 models, ``openpi_rlinf``: beside the weights, and in the config of the run.

``config.json`` of its converters (rlinf/utils/ckpt_convertor/openpi/{pt_to_safetensors,jax_to_openpi_rlinf}.py):
{action_dim, action_horizon, max_token_len, paligemma_variant, action_expert_variant, pi05, discrete_state_input, pcd,
dtype}. RLinf itself reads none of it: the run's YAML says what is built (models/embodiment/openpi_rlinf/__init__.py).
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
    """Whether a ``config.json`` is of RLinf's converters: of those with OpenPI's entries they alone have ``pcd``."""
    return {"action_horizon", "paligemma_variant", "pcd"} <= values.keys() and "type" not in values


def read_openpi_rlinf(values: Mapping[str, Any], place: str, found: Statements) -> None:
    """Enter what such a ``config.json`` says."""
    found.writer = "rlinf"
    read_openpi(values, place, found)
    entries = Entries(place, values)
    if entries.flag("pcd"):
        cause = f"{place}: pcd is true: the model sees point clouds, which the policy here does not"
        found.refuse(cause, "evaluate it in RLinf, or name the weights of a model that was trained without")
    if "discrete_state_input" not in entries:
        # The converter of JAX's weights, which does not know them: they are its options, and their defaults.
        for key, option in _OPTIONS.items():
            if f"model.{key}" in found.values:
                remark = f"{place}: {key} {values[key]} is what RLinf's converter was told by {option}, or its default"
                found.doubt(f"model.{key}", remark)
    found.problems += entries.problems


def read_openpi_rlinf_run(model: Mapping[str, Any], place: str, found: Statements) -> None:
    """Enter what ``actor.model`` of a run says that trained such a model.

    Args:
        model: its entries.
        place: what messages call it.
        found: gets what it says.
    """
    outer = Entries(place, model)
    entries = Entries(f"{place}.openpi", outer.inner("openpi") or {})
    said = "pi05" in outer
    pi05 = outer.flag("pi05") if said else True
    found.say("model.pi05", pi05, f"{place}.pi05" if said else f"{place}, which is pi0.5 where pi05 is not set")
    # One number for what is predicted and what is executed of it.
    chunk = outer.count("num_action_chunks")
    found.say("model.action_horizon", chunk, f"{place}.num_action_chunks")
    found.say("policy.action_chunk", chunk, f"{place}.num_action_chunks")
    found.say("policy.denoise_steps", outer.count("num_steps"), f"{place}.num_steps")
    found.say("model.action_dim", entries.count("model_action_dim"), f"{place}.openpi.model_action_dim")
    tokens = entries.count("max_token_len") or (None if pi05 is None else _TOKENS[pi05])
    found.say("model.max_token_len", tokens, f"{place}.openpi.max_token_len")
    found.say(
        "model.discrete_state_input", entries.flag("discrete_state_input"), f"{place}.openpi.discrete_state_input"
    )
    read_variants(entries, found)
    found.problems += [*outer.problems, *entries.problems]
