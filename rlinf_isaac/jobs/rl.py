"""Checks the options of reinforcement learning, and plans a job for each checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.config import build_config, load_config, preset_names
from rlinf_isaac.config.reads import check_overrides, on_engine
from rlinf_isaac.config.suite import single
from rlinf_isaac.config.task import with_prompts
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.jobs import checkpoints, options
from rlinf_isaac.jobs import engine as engines

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings

KEYS = {
    "task": "env.task",
    "algorithm": "rl.algorithm",
    "exploration": "rl.exploration",
    "reward": "rl.reward",
    "iterations": "rl.iterations",
    "lr": "rl.lr",
    "seed": "rl.seed",
    "workers": "rl.workers",
    "eval_episodes": "eval.episodes",
    "env": "env.backend",
    "renderer": "env.renderer",
    "device": "compute.device",
}


def check(
    findings: Findings,
    *,
    ckpt_root: str,
    ckpt_steps: str,
    preset: str,
    assume: str,
    env_python: str = options.AUTO,
    output: Path,
    overrides: str,
    quick: bool = False,
    locate: checkpoints.Locate | None = None,
    **chosen: str,
) -> list[RlJob]:
    """One job per checkpoint, or none if `findings` has errors. With `quick` the weights are not hashed."""
    bundles = checkpoints.chosen_bundles(findings, ckpt_root, ckpt_steps, quick=quick, locate=locate)
    changes = [*options.to_overrides(chosen, KEYS, overrides), *options.of_torchrun()]
    jobs = []
    if not findings.errors:
        python = options.interpreter(env_python)
        jobs = plan(findings, bundles, changes, output, preset, assume, chosen["engine"], python)
    engines.check_engine(findings, chosen, jobs)
    return [] if findings.errors else jobs


def plan(
    findings: Findings,
    bundles: Sequence[Bundle],
    overrides: list[str],
    output: Path,
    preset: str = options.AUTO,
    assume: str = "none",
    engine: str = engines.LOCAL,
    env_python: str | None = None,
) -> list[RlJob]:
    """One job per bundle. Their config is that of the first bundle, with the preset's section `rl` and `overrides`."""
    from rlinf_isaac.checkpoint.coverage import check_coverage
    from rlinf_isaac.checkpoint.description import for_one_process
    from rlinf_isaac.checkpoint.of_task import of_task
    from rlinf_isaac.checkpoint.trained_with import mismatches, not_to_be_allowed
    from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
    from rlinf_isaac.preflight import (
        check_bundles,
        check_config,
        check_device,
        check_free_space,
        check_norm_stats,
        check_prompts,
        check_rl_memory,
        check_simulator,
    )
    from rlinf_isaac.preflight.machine import check_seeded, reinforcement_bytes

    form = on_engine("rl", engine)
    findings.add(check_overrides(form, overrides))
    findings.add(check_bundles(bundles))
    bundles = checkpoints.with_assumptions(findings, bundles, assume, overrides)
    if findings.errors:
        return []
    jobs = []
    with findings.collect():
        recorded = for_one_process(bundles[0].job)
        chosen = str(recorded.get("preset")) if preset == options.AUTO else preset
        # The user's own preset file is not known here. In this case the checkpoint's section rl is used.
        if preset != options.AUTO or chosen in preset_names():
            recorded["rl"] = asdict(load_config(chosen).rl)
        config = build_config(recorded, f"{bundles[0].path}/config.json", overrides)
        if config.suite:
            config = single(config)
            bundles = [of_task(bundle, config.env.task) for bundle in bundles]
        config = with_prompts(config, checkpoints.prompts_of(bundles[0]))
        findings.add([*check_config(config, form, overrides), *check_device(config, form)])
        findings.add([*check_simulator(config, env_python), *check_prompts(config), *check_rl_memory(config, form)])
        findings.add(check_seeded(config, "rl compares before and after on the same episodes", "compare by eval"))
        findings.raise_errors()
        findings.add(check_free_space(output, len(bundles) * reinforcement_bytes(config)))
        for bundle in bundles:
            findings.add(check_coverage(bundle.path, config.model, optional=OPTIONAL_PREFIXES))
            findings.add(not_to_be_allowed(mismatches(bundle, config)))
            findings.add(check_norm_stats(bundle.norm_stats_bytes, bundle.path, config))
            job = RlJob(config, bundle, output, env_python)
            name = f"{config.preset}-{bundle.step}-{json_digest(job.lineage)[:8]}{engines.suffix(engine)}"
            jobs.append(replace(job, output=output.absolute() / "rl" / name))
    return [] if findings.errors else jobs
