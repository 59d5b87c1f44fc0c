"""`eval`: evaluate one or several checkpoints on the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, verb_session
from rlinf_isaac.config import build_config, flatten
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.errors import InvalidJob, Problem

if TYPE_CHECKING:
    from mlflow_project.sweep_recorder import Evaluated
    from rlinf_isaac.checkpoint.bundle import Bundle

EXAMPLE = """\b
Example:
  rlinf-isaac eval --ckpt-root result/isaaclab_openpi/sft/tiny-0123abcd/checkpoints
  mlflow run . -e eval -P ckpt_root=/results/checkpoints -P ckpt_steps=25000,30000"""

KEYS = {
    "episodes": "eval.episodes",
    "first_seed": "eval.first_seed",
    "policy_seed": "eval.policy_seed",
    "num_envs": "eval.num_envs",
    "videos": "eval.videos",
    "renderer": "env.renderer",
    "device": "compute.device",
}
# What an evaluation may change of the job a checkpoint carries; the rest is what it was trained with.
OVERRIDABLE = ("eval.", "env.", "compute.", "policy.action_chunk", "policy.denoise_steps")


@click.command("eval", epilog=EXAMPLE)
@options.option("--ckpt-root", "Directory that holds the checkpoints, one per step.", None)
@options.option("--ckpt-steps", "Steps to evaluate, e.g. '25000,30000' or '25000 30000'; auto: all of them.")
@options.option("--episodes", "Episodes per checkpoint.")
@options.option("--first-seed", "Reset seed of the first episode; the others follow.")
@options.option("--policy-seed", "Seed of the flow-matching noise.")
@options.option("--num-envs", "Environments that step side by side.")
@options.option("--videos", "How many episodes to record, the same ones for every checkpoint.")
@options.option("--renderer", "egl, rays (no GL needed) or auto.")
@options.device
@click.option(
    "--allow-mismatch",
    type=bool,
    default=False,
    show_default=True,
    help="Evaluate although the environment is not the one of the training data; the run is tagged with it.",
)
@options.upload_weights
@options.output
@options.overrides
def command(
    ckpt_root: str,
    ckpt_steps: str,
    allow_mismatch: bool,
    upload_weights: options.UploadWeights,
    output: Path,
    overrides: str,
    **chosen: str,
) -> None:
    """Evaluate checkpoints: one parent run, one nested run per checkpoint that differs in nothing else.

    All checkpoints meet the same seeds, so their episodes are paired. Finished episodes are not repeated: after an
    interruption the same command goes on where it stopped.
    """
    with verb_session():
        from rlinf_isaac.checkpoint.bundle import parse_steps, read_bundle, select_bundles

        paths = select_bundles(ckpt_root, parse_steps(ckpt_steps))
        bundles = [read_bundle(path) for path in paths]
        job = plan(bundles, options.to_overrides(chosen, KEYS, overrides), output, allow_mismatch)
        run(job, output, upload_weights)


def plan(bundles: Sequence[Bundle], overrides: list[str], output: Path, allow_mismatch: bool = False) -> EvaluationJob:
    """The job for these verified bundles, with the config they were trained with and `overrides`.

    Raises:
        InvalidJob: an override changes what was trained, the bundles were trained differently, a value is out of range.
    """
    from rlinf_isaac.preflight import check_bundles, check_config, check_device, raise_if_any

    problems = [
        Problem("not-overridable", f"{item} would change what the checkpoint was trained with", "leave it out")
        for item in overrides
        if "=" in item and not item.startswith(OVERRIDABLE) and item.partition("=")[0] in flatten(JobConfig())
    ]
    raise_if_any(problems)
    raise_if_any(check_bundles(bundles))
    config = build_config(_job_of(bundles[0]), f"{bundles[0].path}/config.json", overrides)
    raise_if_any(check_config(config) or check_device(config))
    return EvaluationJob(config, tuple(b.path for b in bundles), output.absolute() / "eval", allow_mismatch)


def run(job: EvaluationJob, output: Path, upload_weights: options.UploadWeights = "auto") -> list[Evaluated]:
    """Evaluate as a tracked sweep; prints the comparison and returns it, in the order of evaluation."""
    from mlflow_project.checkpoints import model_name
    from mlflow_project.cli._summary import print_comparison
    from mlflow_project.lineage import evaluation_dataset, provenance_tags
    from mlflow_project.progress import watch
    from mlflow_project.runs import tracked_run
    from mlflow_project.sweep_recorder import SweepRecorder
    from rlinf_isaac.engines.local import LocalEngine

    config = job.config
    tags = provenance_tags(PROJECT) | ({"allow_mismatch": "true"} if job.allow_mismatch else {})
    name = f"eval {job.bundles[0].parent.parent.name} x {len(job.bundles)}"
    with tracked_run("eval", output=output, name=name, tags=tags) as tracked:
        tracked.recorder.params(_recorded(config))
        recorder = SweepRecorder(
            tracked.recorder,
            params=_recorded(config),
            model_name=model_name(config.preset, pi05=config.model.pi05),
            dataset=evaluation_dataset(asdict(config.env) | asdict(config.eval)),
            upload_weights=upload_weights,
        )
        watch(LocalEngine().evaluate(job), recorder)
    print_comparison(recorder.results, tracked)
    return recorder.results


def _job_of(bundle: Bundle) -> dict[str, Any]:
    if not isinstance(bundle.config.get("job"), dict):
        cause = f"{bundle.path / 'config.json'} does not say how the checkpoint was trained (no 'job')"
        raise InvalidJob.of("foreign-bundle", cause, "evaluate checkpoints that `sft` wrote")
    return bundle.config["job"]


def _recorded(config: JobConfig) -> dict[str, Any]:
    values = asdict(config)
    return {section: values[section] for section in ("preset", "model", "policy", "env", "eval", "compute")}
