"""Reads the files that lerobot writes beside the weights of a policy: ``config.json``, ``policy_preprocessor.json``.

The files of lerobot 0.4 to 0.6 are supported. Up to 0.4 the state in pi0.5's prompt was padded with zeros to
``max_state_dim`` numbers; later the prompt has only the robot's own numbers, as in OpenPI and here. The entry
``use_relative_actions`` was added after that change, so a config that has it is of a release with the later prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rlinf_isaac.checkpoint.foreign.said.entries import Entries
from rlinf_isaac.checkpoint.foreign.said.openpi import read_variants
from rlinf_isaac.checkpoint.foreign.said.statements import Statements
from rlinf_isaac.ground.errors import Problem

PREPROCESSOR = "policy_preprocessor.json"
POSTPROCESSOR = "policy_postprocessor.json"
POLICY_TYPES = {"pi0": False, "pi05": True}
MODES = {"MEAN_STD": "zscore", "QUANTILES": "quantile"}
_OTHER_MODES = ("MIN_MAX", "IDENTITY", "QUANTILE10")
_PALIGEMMA = "google/paligemma-3b-pt-224"
_ACTION = "action"
_ELSEWHERE = "evaluate it in lerobot"
# Entries that change the inputs or the computation of the model and have no counterpart here, each with the value that
# is equal to not having the entry.
_FOREIGN = {"n_obs_steps": 1, "use_visual_memory": False, "use_proprioceptive_memory": False, "use_peft": False}


def is_lerobot(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` belongs to a lerobot policy."""
    return "type" in values


def read_lerobot(
    values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, place: str, statements: Statements
) -> None:
    """Read lerobot's files.

    Args:
        values: content of ``config.json``.
        preprocessor: content of ``policy_preprocessor.json``; None if there is no such file.
        place: name of ``config.json`` in messages.
        statements: the settings and problems are added to it.
    """
    entries = Entries(place, values)
    policy = entries.word("type")
    if policy not in POLICY_TYPES:
        statements.problems += entries.problems
        if policy is not None:
            cause = f"{place}: the policy is of the type {ascii(policy[:80])[1:-1]}, not pi0 or pi05"
            statements.refuse(cause, "name the directory of a pi0 or pi05 policy")
        return
    pi05 = POLICY_TYPES[policy]
    statements.say("model.pi05", pi05, f"{place}: type")
    for key, config_key in (
        ("chunk_size", "model.action_horizon"),
        ("n_action_steps", "policy.action_chunk"),
        ("max_action_dim", "model.action_dim"),
        ("tokenizer_max_length", "model.max_token_len"),
        ("num_inference_steps", "policy.denoise_steps"),
    ):
        statements.say(config_key, entries.count(key), f"{place}: {key}")
    read_variants(entries, statements)
    _refuse_foreign(entries, pi05, statements)
    _say_norm(entries.inner("normalization_mapping"), f"{place}: normalization_mapping", statements)
    _say_relative(entries, statements)
    _say_state_prompt(entries, pi05, statements)
    _remark_cameras(entries, statements)
    statements.problems += entries.problems
    if preprocessor is not None:
        _read_steps(preprocessor, pi05, statements)


def _refuse_foreign(entries: Entries, pi05: bool, statements: Statements) -> None:
    for key, harmless in _FOREIGN.items():
        value = entries.flag(key) if isinstance(harmless, bool) else entries.count(key)
        if value is not None and value != harmless:
            cause = f"{entries.place}: {key} is {value}, which the policy here does not support"
            statements.refuse(cause, f"{_ELSEWHERE}, or train with {key} {str(harmless).lower()}")
    state, action = entries.count("max_state_dim"), entries.count("max_action_dim")
    if not pi05 and None not in (state, action) and state != action:
        cause = f"{entries.place}: max_state_dim is {state} and max_action_dim {action}; pi0 here has one size for both"
        statements.refuse(cause, _ELSEWHERE)


def _say_norm(mapping: Mapping[str, Any] | None, place: str, statements: Statements) -> None:
    """Read the normalisation: state and actions must have the same mode, one of the two that the policy supports."""
    if mapping is None:
        return
    entries = Entries(place, mapping)
    modes = {key: entries.word(key, [*MODES, *_OTHER_MODES]) for key in ("STATE", "ACTION")}
    statements.problems += entries.problems
    if None in modes.values():
        return
    if len(set(modes.values())) > 1 or modes["STATE"] not in MODES:
        cause = f"{place}: STATE is {modes['STATE']} and ACTION is {modes['ACTION']}; the policy here has MEAN_STD for"
        statements.refuse(f"{cause} both, or QUANTILES for both", f"{_ELSEWHERE}, or train with one of them")
        return
    statements.say("policy.norm", MODES[str(modes["STATE"])], place)


def _say_relative(entries: Entries, statements: Statements) -> None:
    """Convert ``use_relative_actions`` to the mask of `policy.delta_actions`, with lerobot's own rule for the names."""
    relative = entries.flag("use_relative_actions")
    if relative is None:
        return
    place = f"{entries.place}: use_relative_actions"
    if not relative:
        statements.say("policy.delta_actions", "none", place)
        return
    dims = _dims(entries, "output_features", _ACTION)
    if dims is None:
        cause = f"{place} is true, but the number of action dims is not known: output_features has no {_ACTION}"
        statements.refuse(cause, f"add it to {entries.place}, as lerobot writes it")
        return
    tokens = [name.lower() for name in entries.words("relative_exclude_joints") or [] if name]
    names = [name.lower() for name in (entries.words("action_feature_names") or [])[:dims]]
    mask = [not any(token in name for token in tokens) for name in names] + [True] * (dims - len(names))
    runs = [(value, len(list(group))) for value, group in groupby(mask)]
    statements.say("policy.delta_actions", ",".join(str(count if value else -count) for value, count in runs), place)


def _say_state_prompt(entries: Entries, pi05: bool, statements: Statements) -> None:
    """Enter that lerobot's pi0.5 reads the state in its prompt; doubtful if the release may have padded the state."""
    if not pi05:
        return
    statements.say("model.discrete_state_input", True, f"{entries.place}: type pi05, lerobot's rule")
    if "use_relative_actions" not in entries:
        statements.doubt(
            "model.discrete_state_input",
            f"{entries.place} is of lerobot 0.5.0 or older: up to 0.4 the prompt of pi0.5 held the state padded to "
            f"max_state_dim ({entries.count('max_state_dim')}) numbers, here it holds only the robot's own numbers",
        )


def _remark_cameras(entries: Entries, statements: Statements) -> None:
    features = entries.inner("input_features") or {}
    cameras = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("type") == "VISUAL" and "empty_camera" not in name
    ]
    if cameras and cameras != [f"observation.images.{view}" for view in ("front", "wrist")]:
        statements.remarks.append(
            f"{entries.place} names the cameras {', '.join(map(str, cameras))}, which the model reads in this order; "
            "here it reads those of the task, in the order of the model's slots"
        )


def _dims(entries: Entries, key: str, name: str) -> int | None:
    feature = (entries.inner(key) or {}).get(name)
    shape = feature.get("shape") if isinstance(feature, dict) else None
    fits = isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and 0 < shape[0] < 10_000
    return shape[0] if fits and isinstance(shape, list) else None


def _read_steps(values: Mapping[str, Any], pi05: bool, statements: Statements) -> None:
    """Read the steps of the preprocessor: normalisation, tokenizer, state in the prompt, relative actions."""
    for entries in steps_of(values, PREPROCESSOR, statements):
        step = entries.word("registry_name")
        config = Entries(f"{PREPROCESSOR}: {step}", entries.inner("config") or {})
        if step == "normalizer_processor":
            _say_norm(config.inner("norm_map"), f"{config.place}: norm_map", statements)
        elif step == "tokenizer_processor":
            name = config.word("tokenizer_name")
            statements.say("model.max_token_len", config.count("max_length"), f"{config.place}: max_length")
            if name == _PALIGEMMA:
                statements.tokenizer = f"{config.place}: {name}"
            elif name is not None:
                statements.refuse(f"{config.place}: the tokenizer is {name}, not {_PALIGEMMA}", _ELSEWHERE)
        elif step == "pi05_prepare_state_tokenizer_processor_step" and config.flag("include_state_in_prompt") is False:
            statements.refuse(f"{config.place}: the prompt has pi0.5's format, but holds no state", _ELSEWHERE)
        elif step == "relative_actions_processor":
            _check_relative(config, statements)
        statements.problems += [*entries.problems, *config.problems]


def _check_relative(config: Entries, statements: Statements) -> None:
    """Compare the step that makes actions relative with ``config.json``."""
    enabled, said = config.flag("enabled"), statements.values.get("policy.delta_actions")
    if enabled is False:
        statements.say("policy.delta_actions", "none", f"{config.place}: enabled")
    elif enabled and said in (None, "none"):
        cause = f"{config.place}: enabled is true, but config.json does not say so (use_relative_actions)"
        cure = "correct the one that is wrong: config.json has to name the actions that are relative"
        statements.problems.append(Problem("checkpoint-config-contradiction", cause, cure))


def steps_of(values: Mapping[str, Any], place: str, statements: Statements) -> list[Entries]:
    """The steps of a processor's JSON."""
    steps = values.get("steps")
    if isinstance(steps, list) and all(isinstance(step, dict) for step in steps):
        return [Entries(place, step) for step in steps]
    cure = "copy the file again from where the checkpoint was made"
    statements.problems.append(Problem("checkpoint-config-value", f"{place}: steps is not a list of objects", cure))
    return []
