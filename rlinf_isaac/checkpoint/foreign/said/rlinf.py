"""Reads the training's settings from the resolved config of an RLinf run, ``<log_path>/tensorboard/config.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.foreign.said.entries import Entries
from rlinf_isaac.checkpoint.foreign.said.openpi_rlinf import MODEL_TYPE, read_openpi_rlinf_run
from rlinf_isaac.checkpoint.foreign.said.statements import Statements
from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.ground.yaml_text import read_yaml_text

RUN_CONFIG = "tensorboard/config.yaml"
_MODEL = "actor.model"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][\w.]*)\}")
_MOST_HOPS = 5
_LENGTHS = {False: 48, True: 200}

# RLinf's openpi configs (rlinf/models/embodiment/openpi/dataconfig, 0.3): action horizon, and for pi0.5 whether the
# state is in the prompt. Neither is part of their names or of the run's config.
CONFIGS: dict[str, tuple[int, bool | None]] = {
    "pi0_libero": (50, None),
    "pi05_libero": (10, False),
    "pi0_maniskill": (50, None),
    "pi05_maniskill": (10, False),
    "pi05_franka": (8, False),
    "pi05_maniskill_sim_real_co_training": (8, False),
    "pi0_metaworld": (5, None),
    "pi05_metaworld": (5, False),
    "pi0_calvin": (5, None),
    "pi05_calvin": (5, False),
    "pi0_robocasa_human": (5, None),
    "pi0_aloha_robotwin": (50, None),
    "pi05_aloha_robotwin": (50, True),
    "pi0_behavior": (50, None),
    "pi05_behavior": (32, True),
    "pi05_gsenv": (5, False),
    "pi0_realworld": (10, None),
    "pi0_custom": (50, None),
    "pi05_isaaclab_stack_cube": (10, False),
    "pi05_dualfranka_tcp_rot6d": (20, False),
    "pi0_droid_polaris": (10, None),
    "pi05_droid_polaris": (15, True),
}


def run_config_of(root: Path) -> Path | None:
    """The config file of the RLinf run that wrote the checkpoint `root`; None if there is no such file.

    It is three directories up, beside ``<experiment>/checkpoints``.
    """
    if len(root.parents) < 3:
        return None
    file = root.parents[2] / RUN_CONFIG
    return file if file.is_file() else None


def load_run_config(file: Path) -> Any:
    """The config as plain values. Interpolations are not resolved: they could read this machine's environment.

    Raises:
        BundleError: ``rlinf-config``, the file cannot be read.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return OmegaConf.to_container(OmegaConf.load(StringIO(read_yaml_text(file))), resolve=False)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        cure = "copy it again from where RLinf ran, or move it away: then nothing is taken from it"
        raise BundleError.of("rlinf-config", f"{file} cannot be read: {error}", cure) from error


def select(config: Any, key: str) -> Any:
    """The value at a dotted key; None if there is none, or if it has an interpolation that is not followed.

    Only values of the form ``${other.key}`` are followed, also inside an object or a list.
    """
    return _followed(config, _at(config, key))


def _at(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None
    return config


def _followed(config: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _followed(config, entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_followed(config, entry) for entry in value]
    for _ in range(_MOST_HOPS):
        if isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
            value = _at(config, match[1])
    # References to objects are not followed: an object would be copied at every reference, and nested references would
    # multiply the copies.
    unknown = isinstance(value, dict | list) or (isinstance(value, str) and ("${" in value or value == "???"))
    return None if unknown else value


def read_rlinf(config: Any, file: Path, statements: Statements) -> bool:
    """Read the config of the model. Returns whether it is one of RLinf's ``openpi`` models, to which OpenPI's rules
    apply."""
    model = select(config, _MODEL)
    place = f"{file.name}: {_MODEL}"
    if isinstance(model, dict) and model.get("model_type") == MODEL_TYPE:
        read_openpi_rlinf_run(model, place, statements)
        return True
    if not isinstance(model, dict) or model.get("model_type") not in (None, "openpi"):
        return False
    outer = Entries(place, model)
    entries = Entries(f"{place}.openpi", outer.inner("openpi") or {})
    statements.say("policy.action_chunk", outer.count("num_action_chunks"), f"{place}.num_action_chunks")
    statements.say("policy.denoise_steps", outer.count("num_steps"), f"{place}.num_steps")
    name = entries.word("config_name")
    # Settings of the run take precedence over those of the openpi config that it names.
    own = {key: entries.count(key) for key in ("action_horizon", "max_token_len")}
    flag = entries.flag("discrete_state_input")
    for key, value in own.items():
        statements.say(f"model.{key}", value, f"{place}.openpi.{key}")
    statements.say("model.discrete_state_input", flag, f"{place}.openpi.discrete_state_input")
    if name in CONFIGS:
        _say_named(name, {**own, "discrete_state_input": flag}, f"{place}.openpi.config_name", statements)
    elif name is not None:
        remark = f"{file} names the openpi config {name}, which RLinf 0.3 does not have, so its settings are not known"
        statements.remarks.append(remark)
    statements.problems += [*outer.problems, *entries.problems]
    return "openpi" in model


def _say_named(name: str, own: Mapping[str, Any], place: str, statements: Statements) -> None:
    horizon, discrete = CONFIGS[name]
    pi05 = name.startswith("pi05")
    named = {"action_horizon": horizon, "max_token_len": _LENGTHS[pi05], "discrete_state_input": discrete}
    statements.say("model.pi05", pi05, f"{place} {name}")
    for key, value in named.items():
        if own[key] is None:
            statements.say(f"model.{key}", value, f"{place} {name}, as RLinf 0.3 has it")
