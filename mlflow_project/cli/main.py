"""`main`: the whole path, from demonstrations to a champion in the model registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._command import JobCommand
from mlflow_project.cli._followers import Followers, followers
from mlflow_project.cli._session import preflight, stdout, verb_session
from mlflow_project.vocabulary import ABOUT_TAG, COMPARISON_PAGE
from rlinf_isaac.jobs.main import KEYS, carried, check
from rlinf_isaac.jobs.options import interpreter

if TYPE_CHECKING:
    from mlflow_project.comparison.compare import Comparison
    from mlflow_project.tracking.runs import TrackedRun
    from rlinf_isaac.config.schema import JobConfig

STAGES = {
    "demos": "demonstrations",
    "norm_stats": "norm stats",
    "sft": "fine-tuning",
    "eval": "evaluation",
    "rl": "reinforcement learning",
    "promote": "comparison and promotion",
}
"""The stages by the names under which their durations are recorded, in their order, and what is said of them."""

EXAMPLE = """\b
Example:
  rlinf-isaac main
  mlflow run . --env-manager local
  mlflow run . --env-manager local -P demos=40 -P steps=300 -P episodes=10 -P rl_iterations=0
  mlflow run . --env-manager local -P env=isaaclab -P overrides=env.task=stack3,env.max_episode_steps=320"""


@click.command("main", cls=JobCommand, keys=KEYS, epilog=EXAMPLE)
@options.preset
@options.task
@options.option("--demos", "Demonstrations to record.")
@options.option("--steps", "Optimiser steps of the fine-tuning.")
@options.option("--save-interval", "Steps between checkpoints.")
@options.option("--episodes", "Evaluation episodes per checkpoint.")
@options.option("--rl-iterations", "Rounds of reinforcement learning from the best checkpoint; 0 leaves it out.", "4")
@options.option("--seed", "Seed of weights, batches and noise.")
@options.env
@options.env_python
@options.renderer
@options.device
@options.upload_weights
@followers
@options.output
@options.overrides
@options.tracking
def command(output: Path, upload_weights: options.UploadWeights, followers: Followers, **settings: Any) -> None:
    """demos -> norm_stats -> sft -> eval of every checkpoint -> rl from the best -> compare -> promote, as one run.

    With the defaults: MuJoCo stack-cube with two cubes and a tiny pi0, some minutes on a laptop. The tiny policy also
    sees the poses of the cubes. Steps that are finished on disk are reused.
    """
    with verb_session():
        with preflight() as findings:
            followers.check(findings)
            config = check(findings, output=output, **settings)
        python = interpreter(settings["env_python"])
        with followers.at_work():
            run(config, output, upload_weights, improve=settings["rl_iterations"] != "0", env_python=python)


def run(
    config: JobConfig,
    output: Path,
    upload_weights: options.UploadWeights,
    *,
    improve: bool,
    env_python: str | None,
) -> None:
    """All steps as nested runs of one tracked run; `rl` among them if `improve`. Prints how to serve the champion."""
    from mlflow_project.cli._summary import print_comparison, print_gains
    from mlflow_project.lineage.provenance import provenance_tags, task_tags
    from mlflow_project.recorders.main_recorder import AWAITED, MainRecorder
    from mlflow_project.tracked import PROJECT, demos, evaluation, norm_stats, rl, sft
    from mlflow_project.tracking.announce import Stages
    from mlflow_project.tracking.runs import tracked_run
    from rlinf_isaac.checkpoint.bundle import read_bundle, select_bundles
    from rlinf_isaac.jobs.evaluation import plan as plan_evaluation
    from rlinf_isaac.jobs.rl import plan as plan_rl
    from rlinf_isaac.jobs.sft import plan as plan_sft

    name = f"main {Path(config.preset).stem} {date.today()}"
    tags = provenance_tags(PROJECT) | task_tags(config) | AWAITED
    improves = improve and not config.suite
    # The statistics of several tasks are computed by `sft`, whose run records them.
    left_out = ({"norm_stats"} if config.suite else set()) | (set() if improves else {"rl"})
    stages = Stages(*(words for key, words in STAGES.items() if key not in left_out))
    with tracked_run("main", output=output, name=name, tags=tags) as tracked:
        record = MainRecorder(tracked.recorder, config, improve=improve)

        @contextmanager
        def stage(key: str) -> Iterator[None]:
            stages.begin(STAGES[key])
            with record.stage(key):
                yield

        with stage("demos"):
            dataset, *others = demos.run_all(config, output, env_python)
        stats = None
        if not config.suite:
            with stage("norm_stats"):
                stats = norm_stats.run(config, dataset, output)
        with stage("sft"):
            job = plan_sft(config, dataset, stats, output, mixed_with=others, say=stdout.print, env_python=env_python)
            checkpoints = sft.run(job, output, upload_weights)
        with preflight() as findings:
            bundles = [read_bundle(path) for path in select_bundles(checkpoints, None)]
            changes = carried("eval", config, "eval.")
            evaluate = plan_evaluation(findings, bundles, changes, output, env_python=env_python)
        assert evaluate is not None
        record.trained(job, bundles)
        record.dataset(evaluation.played_dataset(evaluate.config))
        with stage("eval"):
            comparison = evaluation.run(evaluate, output, upload_weights, say=stdout.print).comparison
        print_comparison(comparison)
        if improve and config.suite:
            stdout.print("Reinforcement learning is left out, because it is for one task; `rl --task NAME` does it.")
        if improves:
            # Of equally good ones the earliest.
            best = comparison.standings[0].evaluation.checkpoint
            start = [bundle for bundle in bundles if bundle.digest == best]
            with preflight() as findings:
                changes = carried("rl", config, "eval.", "rl.", "compute.num_processes")
                jobs = plan_rl(findings, start, changes, output, env_python=env_python)
            with stage("rl"):
                improved = rl.run(jobs, output, upload_weights, say=stdout.print).improved
            record.improved([read_bundle(each.path, verify=False) for each in improved])
            print_gains(improved)
        with stage("promote"):
            record.compared(_decide(tracked, output, title=name, improved=improves) or comparison, bundles[0].digest)


def _decide(tracked: TrackedRun, output: Path, *, title: str, improved: bool) -> Comparison | None:
    """Compare all checkpoints of this run, and let the best one pass the gate if it can.

    A refusal is a result, not a failure of `main`. Returns None where MLflow does not have the runs yet.
    """
    from mlflow_project.cli._summary import print_comparison, print_links, print_promotion, show
    from mlflow_project.tracked import compare, promote
    from mlflow_project.tracking import ui

    ids = tracked.ids()
    if ids is None or not tracked.delivered():
        stdout.print("MLflow does not have these runs yet; nothing is compared and promoted. When `sync` has brought")
        stdout.print("them there, `rlinf-isaac promote` with this run's id does.")
        return None
    with preflight() as findings:
        evaluations = compare.check(findings, runs=(ids[0],))
    comparison = compare.record(evaluations, tracked, title)
    if improved:  # else `eval` has shown the same
        print_comparison(comparison)
    with preflight() as findings:
        job = promote.check(findings, subject=ids[0])
    assert job is not None
    promotion = promote.run(job, output, stdout.print, show)
    tracked.recorder.tags({f"{ABOUT_TAG}promotion": promotion.words(job.name)})
    print_promotion(promotion, job.name)
    print_links(tracked, COMPARISON_PAGE)
    stdout.print(f"all of main    {ui.main_link(ui.base_url(tracked.tracking_uri), ids[1])}")
    return comparison
