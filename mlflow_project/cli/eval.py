"""`eval`: evaluate one or several checkpoints on the same seeds."""

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
from mlflow_project.vocabulary import COMPARISON_PAGE
from rlinf_isaac.config import build_config
from rlinf_isaac.config.reads import check_overrides, on_engine
from rlinf_isaac.engines.base import Engine, EvaluationJob
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.ground.probe import check_output
from rlinf_isaac.stats.sequential import StopRule

if TYPE_CHECKING:
    from mlflow_project.comparison.compare import Comparison
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac eval --ckpt-root result/isaaclab_openpi/sft/tiny-0123abcd/checkpoints
  rlinf-isaac eval --ckpt-root CHECKPOINTS --until-decided --episodes 200 --batch 25
  rlinf-isaac eval --ckpt-root CHECKPOINTS --engine rlinf --rlinf-python rlinf-venv/bin/python
  rlinf-isaac eval --ckpt-root CHECKPOINTS --engine rlinf --ray-address head:6379 --parallel 4
  mlflow run . -e eval -P ckpt_root=/results/checkpoints -P ckpt_steps=25000,30000"""

KEYS = {
    "episodes": "eval.episodes",
    "first_seed": "eval.first_seed",
    "policy_seed": "eval.policy_seed",
    "num_envs": "eval.num_envs",
    "videos": "eval.videos",
    "env": "env.backend",
    "renderer": "env.renderer",
    "device": "compute.device",
}


@click.command("eval", epilog=EXAMPLE)
@options.option("--ckpt-root", "Directory that holds the checkpoints, one per step.", None)
@options.option("--ckpt-steps", "Steps to evaluate, e.g. '25000,30000' or '25000 30000'; auto: all of them.")
@options.option("--norm-stats", "norm_stats.json; auto: the one in the checkpoint. Any other is a mismatch.")
@options.option("--episodes", "Episodes per checkpoint; with --until-decided at most so many.")
@options.option("--first-seed", "Reset seed of the first episode; the others follow.")
@options.option("--policy-seed", "Seed of the flow-matching noise.")
@options.option("--num-envs", "Environments that step side by side.")
@options.option("--videos", "How many episodes to record, the same ones for every checkpoint.")
@options.env
@options.isaaclab_python
@options.renderer
@options.device
@options.flag(
    "--until-decided",
    "All checkpoints together, batch by batch, until one is better than every other (e-process, error rate 0.05) or "
    "--episodes are done.",
)
@options.option("--batch", "Episodes per checkpoint between two looks; auto: as many as step side by side.")
@options.flag(
    "--allow-mismatch",
    "Go on although norm stats, tokenizer, prompt, action chunk, state or environment are not those of the training; "
    "the run is tagged with it and its checkpoints cannot be promoted.",
)
@options.assume
@options.engine
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With --engine rlinf: checkpoints side by side, each on its own accelerator or node of the Ray cluster.",
)
@options.upload_weights
@options.output
@options.overrides
def command(output: Path, upload_weights: options.UploadWeights, **settings: Any) -> None:
    """Evaluate checkpoints: one parent run, one nested run per checkpoint that differs in nothing else.

    All checkpoints meet the same seeds, so their episodes are paired. Finished episodes are not repeated: after an
    interruption the same command goes on where it stopped. It ends with the comparison that `compare` makes. Before
    anything starts, weights are hashed and compared with the architecture, norm stats, tokenizer, prompt, action chunk,
    state and environment with those of the training.
    """
    with verb_session():
        with preflight() as findings:
            job = check(findings, output=output, **settings)
        assert job is not None
        run(job, output, upload_weights, engines.chosen_engine(settings))


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
    output: Path,
    overrides: str,
    quick: bool = False,
    **chosen: Any,
) -> EvaluationJob | None:
    """Check these options; the job, unless `findings` has errors. `quick` leaves out hashing the weights."""
    findings.add(check_output(output))
    bundles = checkpoints.chosen_bundles(findings, ckpt_root, ckpt_steps, quick=quick)
    changes = options.to_overrides(chosen, KEYS, overrides)
    given = None if norm_stats == options.AUTO else Path(norm_stats)
    job = None
    if not findings.errors:
        job = plan(findings, bundles, changes, output, given, allow_mismatch, assume, chosen["engine"])
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
) -> EvaluationJob | None:
    """The job for these bundles, with the config they were trained with and `overrides`; None where that has errors."""
    from rlinf_isaac.checkpoint.coverage import check_coverage
    from rlinf_isaac.checkpoint.trained_with import NormStatsFile, mismatches
    from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
    from rlinf_isaac.preflight import check_bundles, check_config, check_device, check_norm_stats, check_simulator

    form = on_engine("eval", engine)
    findings.add(check_overrides(form, overrides))
    findings.add(check_bundles(bundles))
    bundles = checkpoints.with_assumptions(findings, bundles, assume, overrides)
    if findings.errors:
        return None
    with findings.collect():
        config = build_config(bundles[0].job, f"{bundles[0].path}/config.json", overrides)
        findings.add([*check_config(config, form, overrides), *check_device(config, form), *check_simulator(config)])
        findings.raise_errors()
        given = None if norm_stats is None else NormStatsFile.read(norm_stats)
        for bundle in bundles:
            findings.add(check_coverage(bundle.path, config.model, optional=OPTIONAL_PREFIXES))
            found = mismatches(bundle, config, norm_stats=given)
            findings.add(replace(problem, level="warning") if allow_mismatch else problem for problem in found)
            stats = (given.data, given.path) if given else (bundle.norm_stats_bytes, bundle.path)
            findings.add(check_norm_stats(*stats, config))
        return EvaluationJob(config, tuple(bundles), output.absolute() / "eval", given, allow_mismatch)
    return None


def run(
    job: EvaluationJob,
    output: Path,
    upload_weights: options.UploadWeights = "auto",
    engine: Engine | None = None,
) -> Comparison:
    """Evaluate as a tracked sweep, on the local engine if none is given; prints the comparison and returns it."""
    from mlflow_project.cli._summary import print_comparison, print_links
    from mlflow_project.lineage.provenance import digest_tags, evaluation_dataset, provenance_tags
    from mlflow_project.recorders.logged_checkpoints import fine_tuning_words, model_name
    from mlflow_project.recorders.sweep_recorder import SweepRecorder
    from mlflow_project.tracking.progress import watch
    from mlflow_project.tracking.runs import tracked_run
    from rlinf_isaac.engines.local import LocalEngine

    engine = engine or LocalEngine()
    config, rule = job.config, job.stop_rule and asdict(job.stop_rule)
    root = job.bundles[0].path.parent
    raw = " raw" if root.name == "checkpoints-raw" else ""  # beside the average of the same steps
    trained = job.bundles[0].config
    trainable = trained.get("job", {}).get("sft", {}).get("trainable", "all")
    how = fine_tuning_words(trainable, (trained.get("base") or {}).get("name"))
    name = f"eval {root.parent.name}{raw}{how} x {len(job.bundles)}"
    with tracked_run("eval", output=output, name=name, tags=provenance_tags(PROJECT) | engine.tags()) as tracked:
        tracked.recorder.params(checkpoints.recorded(config))
        tracked.recorder.tags(digest_tags({"norm_stats": print_played(job.bundles, job.norm_stats)}))
        recorder = SweepRecorder(
            tracked.recorder,
            params=checkpoints.recorded(config),
            model_name=model_name(config.preset, pi05=config.model.pi05),
            dataset=evaluation_dataset(asdict(config.env) | asdict(config.eval) | {"stop_rule": rule}),
            name=name,
            planned=len(job.bundles),
            upload_weights=upload_weights,
        )
        watch(engine.evaluate(job), recorder)
    assert recorder.comparison is not None
    print_comparison(recorder.comparison)
    print_links(tracked, COMPARISON_PAGE)
    return recorder.comparison


def _stop_rule(findings: Findings, job: EvaluationJob, batch: str) -> StopRule | None:
    if len(job.bundles) < 2:
        cause = f"--until-decided with one checkpoint ({job.bundles[0].path}): there is nothing to compare it with"
        findings.add([Problem("nothing-to-decide", cause, "name two steps or more, or leave --until-decided out")])
    if batch != options.AUTO and not (batch.isdecimal() and int(batch) > 0):
        findings.add([Problem("bad-batch", f"--batch {batch} is no number of episodes", "give 1 or more, or auto")])
    if findings.errors:
        return None
    return StopRule(job.config.eval.num_envs if batch == options.AUTO else int(batch))
