"""`rl`: reinforcement learning of the flow policy from one or several checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _checkpoints as checkpoints
from mlflow_project.cli import _engine as engines
from mlflow_project.cli import _options as options
from mlflow_project.cli._norm_stats import print_played
from mlflow_project.cli._session import PROJECT, preflight, verb_session
from mlflow_project.vocabulary import NOTE_TAG
from rlinf_isaac.config import build_config, load_config, preset_names
from rlinf_isaac.config.reads import check_overrides, on_engine
from rlinf_isaac.engines.base import Engine, EvaluationJob, RlJob
from rlinf_isaac.ground.digest import json_digest

if TYPE_CHECKING:
    from mlflow_project.recorders.rl_recorder import Improved
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac rl --ckpt-root result/isaaclab_openpi/sft/tiny-0123abcd/checkpoints --ckpt-steps 800
  mlflow run . -e rl -P ckpt_root=/results/checkpoints -P ckpt_steps=25000,30000"""

KEYS = {
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


@click.command("rl", epilog=EXAMPLE)
@options.option("--ckpt-root", "Directory that holds the checkpoints, one per step.", None)
@options.option("--ckpt-steps", "Steps to start from, e.g. '25000,30000' or '25000 30000'; auto: all of them.")
@options.option("--preset", "Preset whose section rl is used; auto: the one that the checkpoint was trained with.")
@options.option("--algorithm", "ppo or grpo.")
@options.option("--exploration", "flow_sde or flow_noise.")
@options.option("--reward", "success, or shaped: more for each subtask that is reached.")
@options.option("--iterations", "Rounds of rollouts and update.")
@options.option("--lr", "Learning rate of the policy.")
@options.option("--seed", "Seed of rollouts, noise and minibatches.")
@options.option("--workers", "Processes that play the episodes.")
@options.option("--eval-episodes", "Held-out episodes on which start and result are compared.")
@options.assume
@options.env
@options.isaaclab_python
@options.renderer
@options.device
@options.engine
@options.upload_weights
@options.output
@options.overrides
def command(output: Path, upload_weights: options.UploadWeights, **settings: Any) -> None:
    """Improve checkpoints by PPO or GRPO: a parent run, one nested run per start checkpoint.

    The nested runs differ in nothing but the checkpoint. Each ends with an evaluation of its start and its result on
    the same seeds, which never trained, so that before and after are paired. The same command continues an interrupted
    run, with the same result as an undisturbed one.
    """
    with verb_session():
        with preflight() as findings:
            jobs = check(findings, output=output, **settings)
        run(jobs, output, upload_weights, engines.chosen_engine(settings))


def check(
    findings: Findings,
    *,
    ckpt_root: str,
    ckpt_steps: str,
    preset: str,
    assume: str,
    output: Path,
    overrides: str,
    quick: bool = False,
    **chosen: str,
) -> list[RlJob]:
    """Check these options; one job per checkpoint, none where `findings` has errors. `quick` hashes no weights."""
    bundles = checkpoints.chosen_bundles(findings, ckpt_root, ckpt_steps, quick=quick)
    changes = options.to_overrides(chosen, KEYS, overrides)
    jobs = [] if findings.errors else plan(findings, bundles, changes, output, preset, assume, chosen["engine"])
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
) -> list[RlJob]:
    """One job per bundle, all with the config they were trained with, the preset's section `rl`, and `overrides`."""
    from rlinf_isaac.checkpoint.coverage import check_coverage
    from rlinf_isaac.checkpoint.trained_with import mismatches, not_to_be_allowed
    from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
    from rlinf_isaac.preflight import (
        check_bundles,
        check_config,
        check_device,
        check_free_space,
        check_norm_stats,
        check_simulator,
    )
    from rlinf_isaac.preflight.machine import reinforcement_bytes

    form = on_engine("rl", engine)
    findings.add(check_overrides(form, overrides))
    findings.add(check_bundles(bundles))
    bundles = checkpoints.with_assumptions(findings, bundles, assume, overrides)
    if findings.errors:
        return []
    jobs = []
    with findings.collect():
        recorded = dict(bundles[0].job)
        chosen = str(recorded.get("preset")) if preset == options.AUTO else preset
        # A preset from a file of the user's is not at hand: then rl is what the checkpoint carries.
        if preset != options.AUTO or chosen in preset_names():
            recorded["rl"] = asdict(load_config(chosen).rl)
        config = build_config(recorded, f"{bundles[0].path}/config.json", overrides)
        findings.add([*check_config(config, form, overrides), *check_device(config, form), *check_simulator(config)])
        findings.raise_errors()
        findings.add(check_free_space(output, len(bundles) * reinforcement_bytes(config)))
        for bundle in bundles:
            findings.add(check_coverage(bundle.path, config.model, optional=OPTIONAL_PREFIXES))
            findings.add(not_to_be_allowed(mismatches(bundle, config)))
            findings.add(check_norm_stats(bundle.norm_stats_bytes, bundle.path, config))
            job = RlJob(config, bundle, output)
            name = f"{config.preset}-{bundle.step}-{json_digest(job.lineage)[:8]}{engines.suffix(engine)}"
            jobs.append(replace(job, output=output.absolute() / "rl" / name))
    return [] if findings.errors else jobs


def run(
    jobs: Sequence[RlJob],
    output: Path,
    upload_weights: options.UploadWeights = "auto",
    engine: Engine | None = None,
) -> list[Improved]:
    """Train and evaluate all jobs, one after the other, as nested runs of one tracked run, on the local engine if none
    is given; prints what was gained."""
    from mlflow_project.cli._summary import print_gains, print_links
    from mlflow_project.lineage.provenance import digest_tags, evaluation_dataset, provenance_tags
    from mlflow_project.recorders.comparison_recorder import save_comparison_view
    from mlflow_project.recorders.logged_checkpoints import model_name
    from mlflow_project.recorders.rl_recorder import RlRecorder, gains_markdown
    from mlflow_project.tracking import ui
    from mlflow_project.tracking.progress import watch
    from mlflow_project.tracking.runs import tracked_run
    from rlinf_isaac.engines.local import LocalEngine

    engine, config, improved = engine or LocalEngine(), jobs[0].config, []
    name = f"rl {jobs[0].start.path.parent.parent.name} x {len(jobs)}"
    with tracked_run("rl", output=output, name=name, tags=provenance_tags(PROJECT) | engine.tags()) as tracked:
        tracked.recorder.params(checkpoints.recorded(config, "rl"))
        tracked.recorder.tags(digest_tags({"norm_stats": print_played([job.start for job in jobs])}))
        save_comparison_view(tracked.recorder, columns=ui.GAIN_COLUMNS, charts=ui.GAIN_CHARTS)
        for job in jobs:
            recorder = RlRecorder(
                tracked.recorder,
                job,
                params=checkpoints.recorded(config, "rl"),
                model_name=model_name(config.preset, pi05=config.model.pi05),
                dataset=evaluation_dataset(asdict(config.env) | asdict(config.eval)),
                upload_weights=upload_weights,
            )
            watch(engine.rl(job), recorder.train)
            bundles = (job.start, recorder.result())
            watch(engine.evaluate(EvaluationJob(config, bundles, output.absolute() / "eval")), recorder.evaluate)
            assert recorder.improved is not None
            improved.append(recorder.improved)
            tracked.recorder.tags({NOTE_TAG: gains_markdown(improved)})
    print_gains(improved)
    print_links(tracked)
    return improved
