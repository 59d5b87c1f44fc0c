"""`sft`: supervised fine-tuning of pi0 on a LeRobot dataset."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _engine as engines
from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.digest import json_digest
from rlinf_isaac.engines.base import Engine, SftJob

if TYPE_CHECKING:
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac sft --dataset result/isaaclab_openpi/demos/stack2-0123abcd --steps 1600
  mlflow run . -e sft -P dataset=/data/generated_simdata_full -P preset=pi05"""

KEYS = {
    "steps": "sft.steps",
    "save_interval": "sft.save_interval",
    "batch_size": "sft.batch_size",
    "lr": "sft.lr",
    "seed": "sft.seed",
    "device": "compute.device",
}


@click.command("sft", epilog=EXAMPLE)
@options.option("--dataset", "LeRobot dataset: its directory, or a repo id under HF_LEROBOT_HOME.", None)
@options.repo_id
@options.option("--norm-stats", "norm_stats.json of this dataset; auto computes it.")
@options.preset
@options.option("--steps", "Optimiser steps.")
@options.option("--save-interval", "Steps between checkpoints.")
@options.option("--batch-size", "Samples per step.")
@options.option("--lr", "Peak learning rate.")
@options.option("--seed", "Seed of weights, batches and noise.")
@options.device
@options.engine
@options.upload_weights
@options.output
@options.overrides
def command(output: Path, upload_weights: options.UploadWeights, **settings: Any) -> None:
    """Fine-tune pi0 / pi0.5 with the flow-matching loss; every checkpoint is a verified bundle.

    The same command continues an interrupted run from its last checkpoint, with the same result as an undisturbed one.
    Dataset, norm stats, config and machine are checked before torch is imported; `doctor sft` does only that.
    """
    with verb_session():
        with preflight() as findings:
            checked = check(findings, output=output, **settings)
        assert checked is not None
        job = plan(*checked, output, engines.suffix(settings))
        checkpoints = run(job, output, upload_weights, engines.chosen_engine(settings))
        stdout.print(f"checkpoints  {checkpoints}")
        stdout.print(f"evaluate     rlinf-isaac eval --ckpt-root {checkpoints}")


def check(
    findings: Findings,
    *,
    dataset: str,
    repo_id: str,
    norm_stats: str,
    preset: str,
    output: Path,
    overrides: str,
    quick: bool = False,
    **chosen: str,
) -> tuple[JobConfig, Path, Path | None] | None:
    """Check these options; what `plan` needs, unless `findings` has errors.

    With `quick` a large dataset that was never hashed is not hashed now, and a warning says so.
    """
    from rlinf_isaac.preflight import check_config, check_device, check_free_space, check_training_data
    from rlinf_isaac.preflight.machine import training_bytes

    config = root = None
    with findings.collect():
        config = load_config(preset, options.to_overrides(chosen, KEYS, overrides))
        findings.add([*check_config(config), *check_device(config)])
    with findings.collect():
        root = options.find_dataset(dataset, repo_id)
    if config is None or root is None or findings.errors:
        return None
    given = None if norm_stats == options.AUTO else Path(norm_stats)
    findings.add(check_free_space(output, training_bytes(config)))
    findings.add(check_training_data(config, root, given, quick=quick))
    engines.check_engine(findings, chosen, [SftJob(config, root, "", b"", output)])
    return config, root, given


def plan(config: JobConfig, dataset_root: Path, norm_stats: Path | None, output: Path, suffix: str = "") -> SftJob:
    """The job of these settings, checked before. Its directory is named by everything that decides the result.

    `suffix` ends that name.

    Raises:
        DatasetError: a data file is damaged.
    """
    from rlinf_isaac.data.lerobot_reader import LeRobotDataset
    from rlinf_isaac.data.norm_stats import compute_norm_stats, settings_of

    dataset = LeRobotDataset(dataset_root)
    if norm_stats is None:
        stats = compute_norm_stats(dataset, **settings_of(config)).to_json().encode()
    else:
        stats = norm_stats.read_bytes()
    job = SftJob(config, dataset_root, dataset.digest, stats, output.absolute())
    return replace(job, output=job.output / "sft" / f"{config.preset}-{json_digest(job.lineage)[:8]}{suffix}")


def run(
    job: SftJob, output: Path, upload_weights: options.UploadWeights = "auto", engine: Engine | None = None
) -> Path:
    """Train as one tracked run, on the local engine if none is given; returns the directory of the checkpoints."""
    from mlflow_project.checkpoints import model_name
    from mlflow_project.lineage import digest_tags, lerobot_dataset, provenance_tags
    from mlflow_project.progress import watch
    from mlflow_project.runs import tracked_run
    from mlflow_project.sft_recorder import SftRecorder
    from rlinf_isaac.engines.local import LocalEngine

    engine = engine or LocalEngine()
    tags = provenance_tags(PROJECT) | engine.tags()
    with tracked_run("sft", output=output, name=f"sft {job.output.name}", tags=tags) as tracked:
        values = asdict(job.config)
        sections = ("preset", "model", "policy", "sft", "compute")
        tracked.recorder.params({section: values[section] for section in sections})
        tracked.recorder.tags(digest_tags(job.lineage))
        recorder = SftRecorder(
            tracked.recorder,
            model_name=model_name(job.config.preset, pi05=job.config.model.pi05),
            dataset=lerobot_dataset(job.dataset, job.dataset_digest),
            upload_weights=upload_weights,
        )
        watch(engine.sft(job), recorder)
    return job.output / "checkpoints"
