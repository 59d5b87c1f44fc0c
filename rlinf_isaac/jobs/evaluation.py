"""Checks the options of an evaluation, and plans its job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.config import build_config
from rlinf_isaac.config.reads import check_overrides, on_engine
from rlinf_isaac.config.suite import configs_of, names_of
from rlinf_isaac.config.task import with_prompts
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.robustness import variations_of
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.ground.probe import check_output
from rlinf_isaac.jobs import checkpoints, options
from rlinf_isaac.jobs import engine as engines
from rlinf_isaac.stats.sequential import StopRule

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings

KEYS = {
    "task": "env.task",
    "episodes": "eval.episodes",
    "first_seed": "eval.first_seed",
    "policy_seed": "eval.policy_seed",
    "num_envs": "eval.num_envs",
    "videos": "eval.videos",
    "env": "env.backend",
    "renderer": "env.renderer",
    "device": "compute.device",
    "vary": "vary.axes",
}


def check(
    findings: Findings,
    *,
    ckpt_root: str,
    ckpt_steps: str,
    norm_stats: str,
    until_decided: bool,
    batch: str,
    allow_mismatch: bool,
    assume: str,
    env_python: str = options.AUTO,
    output: Path,
    overrides: str,
    quick: bool = False,
    locate: checkpoints.Locate | None = None,
    **chosen: Any,
) -> EvaluationJob | None:
    """The job of these options, or None if `findings` has errors. With `quick` the weights are not hashed."""
    findings.add(check_output(output))
    bundles = checkpoints.chosen_bundles(findings, ckpt_root, ckpt_steps, quick=quick, locate=locate)
    changes = options.to_overrides(chosen, KEYS, overrides)
    given = None if norm_stats == options.AUTO else Path(norm_stats)
    job = None
    if not findings.errors:
        python = options.interpreter(env_python)
        job = plan(
            findings, bundles, changes, output, given, allow_mismatch, assume, chosen["engine"], python, until_decided
        )
    if job is not None:
        engines.check_engine(findings, chosen, [job])
    if job is None or not until_decided:
        return job
    return replace(job, stop_rule=_stop_rule(findings, job, batch))


def plan(
    findings: Findings,
    bundles: Sequence[Bundle],
    overrides: list[str],
    output: Path,
    norm_stats: Path | None = None,
    allow_mismatch: bool = False,
    assume: str = "none",
    engine: str = engines.LOCAL,
    env_python: str | None = None,
    until_decided: bool = False,
) -> EvaluationJob | None:
    """The job for these bundles, or None if it has errors. Its config is that of their training, with `overrides`."""
    from rlinf_isaac.checkpoint.coverage import check_coverage
    from rlinf_isaac.checkpoint.of_task import of_task
    from rlinf_isaac.checkpoint.trained_with import NormStatsFile, mismatches
    from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
    from rlinf_isaac.preflight import (
        check_bundles,
        check_config,
        check_device,
        check_norm_stats,
        check_prompts,
        check_simulator,
        check_variation,
    )

    form = on_engine("eval", engine)
    findings.add(check_overrides(form, overrides))
    findings.add(check_bundles(bundles))
    bundles = checkpoints.with_assumptions(findings, bundles, assume, overrides)
    if findings.errors:
        return None
    with findings.collect():
        config = build_config(bundles[0].job, f"{bundles[0].path}/config.json", overrides)
        config = with_prompts(config, checkpoints.prompts_of(bundles[0]))
        findings.add([*check_config(config, form, overrides), *check_device(config, form)])
        findings.add([*check_simulator(config, env_python), *check_prompts(config)])
        findings.add(check_variation(config, engine, until_decided))
        if config.suite and engine != engines.LOCAL:
            cause = f"--engine {engine} plays one task, the checkpoint is of several: {', '.join(names_of(config))}"
            findings.add([Problem("suite-engine", cause, "leave --engine out")])
        if config.suite and norm_stats is not None:
            cause = f"--norm-stats {norm_stats} is one file, the checkpoint is of {len(config.suite['tasks'])} tasks"
            findings.add([Problem("suite-norm-stats", cause, "leave --norm-stats at auto: each task has its own")])
        if (several := bundles[0].job.get("suite")) and not config.suite:
            cause = f"{bundles[0].path} was trained for {', '.join(several['order'])}, the job has {config.env.task}"
            findings.add([Problem("suite-one-task", cause, "name some of these, or leave --task out")])
        findings.raise_errors()
        given = None if norm_stats is None else NormStatsFile.read(norm_stats)
        for bundle in bundles:
            findings.add(check_coverage(bundle.path, config.model, optional=OPTIONAL_PREFIXES))
            for own in configs_of(config):
                view = of_task(bundle, own.env.task) if config.suite else bundle
                found = mismatches(view, own, norm_stats=given)
                findings.add(replace(problem, level="warning") if allow_mismatch else problem for problem in found)
                stats = (given.data, given.path) if given else (view.norm_stats_bytes, bundle.path)
                findings.add(check_norm_stats(*stats, own))
        return EvaluationJob(
            config,
            tuple(bundles),
            output.absolute() / "eval",
            given,
            allow_mismatch,
            env_python=env_python,
            vary=variations_of(config),
        )
    return None


def _stop_rule(findings: Findings, job: EvaluationJob, batch: str) -> StopRule | None:
    from rlinf_isaac.preflight.machine import check_seeded

    if len(job.bundles) < 2:
        cause = f"--until-decided with one checkpoint ({job.bundles[0].path}): there is nothing to compare it with"
        findings.add([Problem("nothing-to-decide", cause, "name two steps or more, or leave --until-decided out")])
    findings.add(check_seeded(job.config, "--until-decided compares pairs", "leave --until-decided out"))
    if batch != options.AUTO and not (batch.isdecimal() and int(batch) > 0):
        findings.add([Problem("bad-batch", f"--batch {batch} is not a number of episodes", "give 1 or more, or auto")])
    if findings.errors:
        return None
    return StopRule(job.config.eval.num_envs if batch == options.AUTO else int(batch))
