"""`sft`: supervised fine-tuning of pi0 on a LeRobot dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli import _types as types
from mlflow_project.cli._command import JobCommand
from mlflow_project.cli._followers import Followers, followers
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.jobs import engine as engines
from rlinf_isaac.jobs import sft as jobs
from rlinf_isaac.jobs.options import to_overrides

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.foreign.base import Named
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac sft --dataset result/isaaclab_openpi/demos/stack2-0123abcd --steps 1600
  rlinf-isaac sft --base /models/pi05_base --dataset /data/generated_simdata_full --device cuda
  mlflow run . -e sft -P dataset=/data/generated_simdata_full -P base=models:/stack-cube@champion"""


@click.command("sft", cls=JobCommand, keys=jobs.KEYS, epilog=EXAMPLE)
@options.option(
    "--dataset",
    "LeRobot dataset: its directory, a repo id under HF_LEROBOT_HOME, hf://ORG/NAME; several with commas.",
    None,
    types.DATASET,
)
@options.repo_id
@options.option(
    "--base",
    "Checkpoint to start from: a directory of any published format, hf://ORG/NAME, models:/NAME@ALIAS, or a run's id.",
    "none",
    types.CHECKPOINT,
)
@options.option(
    "--norm-stats",
    "auto: computed from the dataset; base, base:ASSET_ID: the base's own; or a file.",
    type=types.FILE,
)
@options.option(
    "--preset",
    "Preset or YAML file; auto: the base's architecture and settings, or tiny without one.",
    type=types.PRESET,
)
@options.task
@options.option("--steps", "Optimiser steps.")
@options.option("--save-interval", "Steps between checkpoints.")
@options.option("--batch-size", "Samples per step.")
@options.option("--lr", "Peak learning rate.")
@options.option("--seed", "Seed of weights, batches and noise.")
@options.device
@options.allow_other_data
@options.engine
@options.upload_weights
@followers
@options.output
@options.overrides
@options.tracking
def command(output: Path, upload_weights: options.UploadWeights, followers: Followers, **settings: Any) -> None:
    """Fine-tune pi0 / pi0.5 with the flow-matching loss; every checkpoint is a verified bundle.

    The same command continues an interrupted run from its last checkpoint, with the same result as an undisturbed one.
    Base, dataset, norm stats, config and machine are checked before torch is imported; `doctor sft` does only that.
    Without --base training starts from random weights. docs/fine_tuning.md says which norm stats to choose.
    """
    from rlinf_isaac.preflight.checkpoints import check_carried

    if (place := launch()) is not None:
        stdout.quiet = not place.first
    with verb_session():
        with preflight() as findings:
            followers.check(findings)
            checked = check(findings, output=output, **settings)
        assert checked is not None
        root, *mixed_with = checked.datasets
        suffix = engines.suffix(settings["engine"])
        given, base = checked.norm_stats, checked.base
        job = jobs.plan(checked.config, root, given, output, suffix, base, mixed_with, stdout.print)
        with preflight() as findings:
            findings.add(check_carried(job, to_overrides(settings, jobs.KEYS, settings["overrides"])))
        from mlflow_project.tracked import sft as tracked

        with followers.at_work():
            checkpoints = tracked.run(job, output, upload_weights, engines.chosen_engine(settings), checked.allowed)
        stdout.print(f"checkpoints  {checkpoints}")
        stdout.print(f"evaluate     rlinf-isaac eval --ckpt-root {checkpoints}")
        if (raw := checkpoints.with_name("checkpoints-raw")).is_dir():  # on the same seeds, for `compare` to pair
            stdout.print(f"             rlinf-isaac eval --ckpt-root {raw}")


def check(findings: Findings, **settings: Any) -> jobs.Checked | None:
    """`rlinf_isaac.jobs.sft.check`; the base may also be a model or a run of MLflow."""
    return jobs.check(findings, locate=_locate, **settings)


def _locate(base: str) -> Named:
    from mlflow_project.serving.base_source import locate_base

    return locate_base(base)
