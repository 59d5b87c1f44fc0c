"""Checks the options of the job that records demonstrations, and names the directory of its dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.config import flatten, load_config
from rlinf_isaac.config.reads import check_overrides
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.jobs import options
from rlinf_isaac.tasks.task import OF_THE_MACHINE

if TYPE_CHECKING:
    from rlinf_isaac.preflight import Findings

NO_PART_OF_IT = ("demos.workers", *(f"task.{key}" for key in OF_THE_MACHINE))
SECTIONS = ("demos.", "env.", "policy.state_layout", "task.")
KEYS = {
    "task": "env.task",
    "episodes": "demos.episodes",
    "first_seed": "demos.first_seed",
    "env": "env.backend",
    "renderer": "env.renderer",
    "device": "compute.device",
}


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
    from rlinf_isaac.preflight import check_config, check_device, check_free_space, check_prompts, check_simulator
    from rlinf_isaac.preflight.machine import demonstration_bytes

    changes = options.to_overrides(chosen, KEYS, overrides)
    findings.add(check_overrides("demos", changes))
    config = load_config(preset, changes)
    findings.add([*check_config(config, "demos", changes), *check_device(config, "demos")])
    findings.add([*check_simulator(config, options.interpreter(env_python)), *check_prompts(config)])
    findings.add(check_free_space(output, sum(map(demonstration_bytes, configs_of(config)))))
    return config


def with_renderer(config: JobConfig) -> JobConfig:
    """The config with the renderer that ``auto`` means on this machine, unless that is EGL.

    So what is drawn by rays, because EGL does not work, lies in a directory of its own, and the same command finds
    another one when EGL works.
    """
    if config.task or config.env.backend != "mujoco" or config.env.renderer != options.AUTO:
        return config
    from rlinf_isaac.envs.mujoco.rendering import choose_renderer

    chosen = choose_renderer(options.AUTO)
    return config if chosen == "egl" else replace(config, env=replace(config.env, renderer=chosen))


def dataset_root(config: JobConfig, output: Path) -> Path:
    """The directory of the demonstrations with these settings."""
    values = flatten(config)
    settings = {key: value for key, value in values.items() if key.startswith(SECTIONS) and key not in NO_PART_OF_IT}
    if config.env.backend == "isaaclab":  # IsaacLab simulates on this device; MuJoCo always runs on the CPU
        settings["compute.device"] = config.compute.device.partition(":")[0]
    return output.absolute() / "demos" / f"{config.env.task.replace('/', '-')}-{json_digest(settings)[:8]}"
