"""What lerobot writes beside the weights of a policy: ``config.json``, ``policy_preprocessor.json``.

Both are read from lerobot 0.4 to 0.6. Up to 0.4 the prompt of pi0.5 held the state padded with zeros to
``max_state_dim`` numbers; later it holds the robot's own, as OpenPI's and ours. ``use_relative_actions`` came later
still, so that a config which has it is of a release whose prompt is ours.
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
# What changes what the model reads or does, and has no counterpart here; each with the value that changes nothing.
_FOREIGN = {"n_obs_steps": 1, "use_visual_memory": False, "use_proprioceptive_memory": False, "use_peft": False}


def is_lerobot(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is that of a policy of lerobot."""
    return "type" in values


def read_lerobot(
    values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, place: str, found: Statements
) -> None:
    """Enter what lerobot's files say.

    Args:
        values: of ``config.json``.
        preprocessor: of ``policy_preprocessor.json``; None where there is none.
        place: what messages call the first.
        found: gets it, and what is wrong with it.
    """
    entries = Entries(place, values)
    policy = entries.word("type")
    if policy not in POLICY_TYPES:
        found.problems += entries.problems
        if policy is not None:
            cause = f"{place}: the policy is of the type {ascii(policy[:80])[1:-1]}, not pi0 or pi05"
            found.refuse(cause, "name the directory of a pi0 or pi05 policy")
        return
    pi05 = POLICY_TYPES[policy]
    found.say("model.pi05", pi05, f"{place}: type")
    for key, config_key in (
        ("chunk_size", "model.action_horizon"),
        ("n_action_steps", "policy.action_chunk"),
        ("max_action_dim", "model.action_dim"),
        ("tokenizer_max_length", "model.max_token_len"),
        ("num_inference_steps", "policy.denoise_steps"),
    ):
        found.say(config_key, entries.count(key), f"{place}: {key}")
    read_variants(entries, found)
    _refuse_foreign(entries, pi05, found)
    _say_norm(entries.inner("normalization_mapping"), f"{place}: normalization_mapping", found)
    _say_relative(entries, found)
    _say_state_prompt(entries, pi05, found)
    _remark_cameras(entries, found)
    found.problems += entries.problems
    if preprocessor is not None:
        _read_steps(preprocessor, pi05, found)


def _refuse_foreign(entries: Entries, pi05: bool, found: Statements) -> None:
    for key, harmless in _FOREIGN.items():
        value = entries.flag(key) if isinstance(harmless, bool) else entries.count(key)
        if value is not None and value != harmless:
            cause = f"{entries.place}: {key} is {value}, which the policy here does not do"
            found.refuse(cause, f"{_ELSEWHERE}, or train with {key} {str(harmless).lower()}")
    state, action = entries.count("max_state_dim"), entries.count("max_action_dim")
    if not pi05 and None not in (state, action) and state != action:
        cause = f"{entries.place}: max_state_dim is {state} and max_action_dim {action}; pi0 here has one size for both"
        found.refuse(cause, _ELSEWHERE)


def _say_norm(mapping: Mapping[str, Any] | None, place: str, found: Statements) -> None:
    """One mode for state and actions, of the two that the policy has."""
    if mapping is None:
        return
    entries = Entries(place, mapping)
    modes = {key: entries.word(key, [*MODES, *_OTHER_MODES]) for key in ("STATE", "ACTION")}
    found.problems += entries.problems
    if None in modes.values():
        return
    if len(set(modes.values())) > 1 or modes["STATE"] not in MODES:
        cause = (
            f"{place}: STATE is {modes['STATE']} and ACTION is {modes['ACTION']}; the policy here knows MEAN_STD for"
        )
        found.refuse(f"{cause} both, or QUANTILES for both", f"{_ELSEWHERE}, or train with one of them")
        return
    found.say("policy.norm", MODES[str(modes["STATE"])], place)


def _say_relative(entries: Entries, found: Statements) -> None:
    """``use_relative_actions`` as the mask of `policy.delta_actions`, by lerobot's own rule for the names."""
    relative = entries.flag("use_relative_actions")
    if relative is None:
        return
    place = f"{entries.place}: use_relative_actions"
    if not relative:
        found.say("policy.delta_actions", "none", place)
        return
    dims = _dims(entries, "output_features", _ACTION)
    if dims is None:
        cause = f"{place} is true, and nothing says how many actions there are: output_features has no {_ACTION}"
        found.refuse(cause, f"add it to {entries.place}, as lerobot writes it")
        return
    tokens = [name.lower() for name in entries.words("relative_exclude_joints") or [] if name]
    names = [name.lower() for name in (entries.words("action_feature_names") or [])[:dims]]
    mask = [not any(token in name for token in tokens) for name in names] + [True] * (dims - len(names))
    runs = [(value, len(list(group))) for value, group in groupby(mask)]
    found.say("policy.delta_actions", ",".join(str(count if value else -count) for value, count in runs), place)


def _say_state_prompt(entries: Entries, pi05: bool, found: Statements) -> None:
    """pi0.5 of lerobot always reads the state in its prompt; see the module's docstring for how."""
    if not pi05:
        return
    found.say("model.discrete_state_input", True, f"{entries.place}: type pi05, lerobot's rule")
    if "use_relative_actions" not in entries:
        found.doubt(
            "model.discrete_state_input",
            f"{entries.place} is of lerobot 0.5.0 or older: up to 0.4 the prompt of pi0.5 held the state padded to "
            f"max_state_dim ({entries.count('max_state_dim')}) numbers, here it holds only the robot's own",
        )


def _remark_cameras(entries: Entries, found: Statements) -> None:
    features = entries.inner("input_features") or {}
    cameras = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("type") == "VISUAL" and "empty_camera" not in name
    ]
    if cameras and cameras != [f"observation.images.{view}" for view in ("front", "wrist")]:
        found.remarks.append(
            f"{entries.place} names the cameras {', '.join(map(str, cameras))}, which the model reads in this order; "
            "here it reads front and wrist"
        )


def _dims(entries: Entries, key: str, name: str) -> int | None:
    feature = (entries.inner(key) or {}).get(name)
    shape = feature.get("shape") if isinstance(feature, dict) else None
    fits = isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and 0 < shape[0] < 10_000
    return shape[0] if fits and isinstance(shape, list) else None


def _read_steps(values: Mapping[str, Any], pi05: bool, found: Statements) -> None:
    """The steps of the preprocessor: what normalises, the tokenizer, whether the state stands in the prompt."""
    for entries in steps_of(values, PREPROCESSOR, found):
        step = entries.word("registry_name")
        config = Entries(f"{PREPROCESSOR}: {step}", entries.inner("config") or {})
        if step == "normalizer_processor":
            _say_norm(config.inner("norm_map"), f"{config.place}: norm_map", found)
        elif step == "tokenizer_processor":
            name = config.word("tokenizer_name")
            found.say("model.max_token_len", config.count("max_length"), f"{config.place}: max_length")
            if name == _PALIGEMMA:
                found.tokenizer = f"{config.place}: {name}"
            elif name is not None:
                found.refuse(f"{config.place}: the tokenizer is {name}, not {_PALIGEMMA}", _ELSEWHERE)
        elif step == "pi05_prepare_state_tokenizer_processor_step" and config.flag("include_state_in_prompt") is False:
            found.refuse(f"{config.place}: the prompt holds no state, but is still pi0.5's", _ELSEWHERE)
        elif step == "relative_actions_processor":
            _check_relative(config, found)
        found.problems += [*entries.problems, *config.problems]


def _check_relative(config: Entries, found: Statements) -> None:
    """The step that makes actions relative, against what ``config.json`` says of them."""
    enabled, said = config.flag("enabled"), found.values.get("policy.delta_actions")
    if enabled is False:
        found.say("policy.delta_actions", "none", f"{config.place}: enabled")
    elif enabled and said in (None, "none"):
        cause = f"{config.place}: enabled is true, but config.json does not say so (use_relative_actions)"
        cure = "correct the one that is wrong: config.json has to name the actions that are relative"
        found.problems.append(Problem("checkpoint-config-contradiction", cause, cure))


def steps_of(values: Mapping[str, Any], place: str, found: Statements) -> list[Entries]:
    """The steps of a processor's JSON."""
    steps = values.get("steps")
    if isinstance(steps, list) and all(isinstance(step, dict) for step in steps):
        return [Entries(place, step) for step in steps]
    cure = "copy the file again from where the checkpoint was made"
    found.problems.append(Problem("checkpoint-config-value", f"{place}: steps is not a list of objects", cure))
    return []
