"""`main`: the whole path, from demonstrations to a champion in the model registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from mlflow_project.vocabulary import COMPARISON_PAGE
from rlinf_isaac.config import load_config
from rlinf_isaac.config.reads import acts, check_overrides
from rlinf_isaac.config.schema import JobConfig

if TYPE_CHECKING:
    from mlflow_project.tracking.runs import TrackedRun
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac main
  mlflow run . --env-manager local
  mlflow run . --env-manager local -P demos=40 -P steps=300 -P episodes=10 -P rl_iterations=0
  mlflow run . --env-manager local -P env=isaaclab -P overrides=env.task=stack3,env.max_episode_steps=320"""

KEYS = {"demos": "demos.episodes", "steps": "sft.steps", "save_interval": "sft.save_interval", "seed": "sft.seed"}
KEYS |= {"episodes": "eval.episodes", "env": "env.backend", "renderer": "env.renderer", "device": "compute.device"}
KEYS |= {"rl_iterations": "rl.iterations"}


@click.command("main", epilog=EXAMPLE)
@options.preset
@options.option("--demos", "Demonstrations to record.")
@options.option("--steps", "Optimiser steps of the fine-tuning.")
@options.option("--save-interval", "Steps between checkpoints.")
@options.option("--episodes", "Evaluation episodes per checkpoint.")
@options.option("--rl-iterations", "Rounds of reinforcement learning from the best checkpoint; 0 leaves it out.", "4")
@options.option("--seed", "Seed of weights, batches and noise.")
@options.env
@options.isaaclab_python
@options.renderer
@options.device
@options.upload_weights
@options.output
@options.overrides
def command(output: Path, upload_weights: options.UploadWeights, **settings: Any) -> None:
    """demos -> norm_stats -> sft -> eval of every checkpoint -> rl from the best -> compare -> promote, as one run.

    With the defaults: MuJoCo stack-cube with two cubes and a tiny pi0, some minutes on a laptop. The tiny policy also
    sees the poses of the cubes. Steps that are finished on disk are reused.
    """
    with verb_session():
        with preflight() as findings:
            config = check(findings, output=output, **settings)
        run(config, output, upload_weights, improve=settings["rl_iterations"] != "0")


def check(
    findings: Findings, *, preset: str, output: Path, overrides: str, quick: bool = False, **chosen: str
) -> JobConfig:
    """Check these options and give their config. Everything here is quick."""
    from rlinf_isaac.preflight import (
        check_config,
        check_device,
        check_free_space,
        check_memory,
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
    findings.add([*check_config(config, form, changes), *check_device(config, form), *check_simulator(config)])
    findings.add(check_shared_memory(config, form))
    findings.raise_errors()
    findings.add([*check_trainable(config, has_base=False), *check_memory(config)])
    findings.add(check_free_space(output, demonstration_bytes(config) + training_bytes(config)))
    return config


def run(
    config: JobConfig, output: Path, upload_weights: options.UploadWeights = "auto", *, improve: bool = True
) -> None:
    """All steps as nested runs of one tracked run; `rl` among them if `improve`. Prints how to serve the champion."""
    from mlflow_project.cli import demos, norm_stats, rl, sft
    from mlflow_project.cli import eval as evaluation
    from mlflow_project.lineage.provenance import provenance_tags
    from mlflow_project.tracking.runs import tracked_run
    from rlinf_isaac.checkpoint.bundle import read_bundle, select_bundles

    name = f"main {config.preset}"
    with tracked_run("main", output=output, name=name, tags=provenance_tags(PROJECT)) as tracked:
        dataset = demos.run(config, output)
        stats = norm_stats.run(config, dataset, output)
        job = sft.plan(config, dataset, stats, output)
        checkpoints = sft.run(job, output, upload_weights)
        with preflight() as findings:
            bundles = [read_bundle(path) for path in select_bundles(checkpoints, None)]
            evaluate = evaluation.plan(findings, bundles, _overrides("eval", config, "eval."), output)
        assert evaluate is not None
        evaluated = [each.evaluation for each in evaluation.run(evaluate, output, upload_weights).standings]
        if improve:
            # Of equally good ones the earliest.
            start = [bundle for bundle in bundles if bundle.digest == evaluated[0].checkpoint]
            with preflight() as findings:
                jobs = rl.plan(findings, start, _overrides("rl", config, "eval.", "rl."), output)
            rl.run(jobs, output, upload_weights)
        _decide(tracked, output, title=name, improved=improve)


def _decide(tracked: TrackedRun, output: Path, *, title: str, improved: bool) -> None:
    """Compare all checkpoints of this run, and let the best one pass the gate if it can.

    A refusal is a result, not a failure of `main`.
    """
    from mlflow_project.cli import compare, promote
    from mlflow_project.cli._summary import print_comparison, print_links

    ids = tracked.ids()
    if ids is None or not tracked.delivered():
        stdout.print("MLflow does not have these runs yet; nothing is compared and promoted. When `sync` has brought")
        stdout.print("them there, `rlinf-isaac promote` with this run's id does.")
        return
    with preflight() as findings:
        evaluations = compare.check(findings, runs=(ids[0],))
    comparison = compare.record(evaluations, tracked, title)
    if improved:  # else `eval` has shown the same
        print_comparison(comparison)
    with preflight() as findings:
        job = promote.check(findings, subject=ids[0])
    assert job is not None
    promote.run(job, output)
    print_links(tracked, COMPARISON_PAGE)


def _overrides(verb: str, config: JobConfig, *sections: str) -> list[str]:
    """The checkpoints may be older than this call: what they do not fix comes from this job."""
    from rlinf_isaac.config import flatten

    return [
        f"{key}={value}"
        for key, value in flatten(config).items()
        if key.startswith((*sections, "env.renderer")) and acts(verb, key, config)
    ]
