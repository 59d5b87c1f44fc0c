"""Checks the options of `main`, which runs the whole path from demonstrations to a champion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.config import flatten, load_config
from rlinf_isaac.config.reads import acts, check_overrides
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.jobs import options

if TYPE_CHECKING:
    from rlinf_isaac.preflight import Findings

KEYS = {"demos": "demos.episodes", "steps": "sft.steps", "save_interval": "sft.save_interval", "seed": "sft.seed"}
KEYS |= {"episodes": "eval.episodes", "env": "env.backend", "renderer": "env.renderer", "device": "compute.device"}
KEYS |= {"rl_iterations": "rl.iterations", "task": "env.task"}


def check(
    findings: Findings,
    *,
    preset: str,
    env_python: str,
    output: Path,
    overrides: str,
    quick: bool = False,
    **chosen: str,
) -> JobConfig:
    """Check these options and return their config. `quick` has no effect, because all of these checks are quick."""
    from rlinf_isaac.preflight import (
        check_config,
        check_device,
        check_free_space,
        check_memory,
        check_prompts,
        check_shared_memory,
        check_simulator,
        check_trainable,
    )
    from rlinf_isaac.preflight.machine import demonstration_bytes, training_bytes

    form = "main"
    if chosen["rl_iterations"] == "0":
        form, chosen["rl_iterations"] = "main --rl-iterations 0", options.AUTO
    changes = options.to_overrides(chosen, KEYS, overrides)
    findings.add(check_overrides(form, changes))
    config = load_config(preset, changes)
    findings.add([*check_config(config, form, changes), *check_device(config, form)])
    findings.add([*check_simulator(config, options.interpreter(env_python)), *check_prompts(config)])
    findings.add(check_shared_memory(config, form))
    findings.raise_errors()
    findings.add([*check_trainable(config, has_base=False), *check_memory(config)])
    demonstrations = sum(map(demonstration_bytes, configs_of(config)))
    findings.add(check_free_space(output, demonstrations + training_bytes(config)))
    return config


def carried(verb: str, config: JobConfig, *sections: str) -> list[str]:
    """The settings of `config` in these sections that the later job of `verb` gets as overrides.

    The checkpoints may have been made by an earlier call. Settings that they do not fix come from the present job.
    """
    return [
        f"{key}={value}"
        for key, value in flatten(config).items()
        if key.startswith((*sections, "env.renderer")) and acts(verb, key, config)
    ]
