"""`sft`: supervised fine-tuning of pi0 on a LeRobot dataset."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, stdout, verb_session
from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.digest import json_digest
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.errors import Problem

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
@options.option("--norm-stats", "norm_stats.json of this dataset; auto computes it.")
@options.preset
@options.option("--steps", "Optimiser steps.")
@options.option("--save-interval", "Steps between checkpoints.")
@options.option("--batch-size", "Samples per step.")
@options.option("--lr", "Peak learning rate.")
@options.option("--seed", "Seed of weights, batches and noise.")
@options.device
@options.upload_weights
@options.output
@options.overrides
def command(
    dataset: str,
    norm_stats: str,
    preset: str,
    upload_weights: options.UploadWeights,
    output: Path,
    overrides: str,
    **chosen: str,
) -> None:
    """Fine-tune pi0 / pi0.5 with the flow-matching loss; every checkpoint is a verified bundle.

    The same command continues an interrupted run from its last checkpoint, with the same result as an undisturbed one.
    """
    with verb_session():
        from rlinf_isaac.data.resolve import resolve_dataset
        from rlinf_isaac.preflight import check_config, check_dataset, check_device, raise_if_any

        config = load_config(preset, options.to_overrides(chosen, KEYS, overrides))
        root = resolve_dataset(dataset).root
        raise_if_any(check_config(config) or [*check_dataset(config, root), *check_device(config)])
        job = plan(config, root, None if norm_stats == options.AUTO else Path(norm_stats), output)
        checkpoints = run(job, output, upload_weights)
        stdout.print(f"checkpoints  {checkpoints}")
        stdout.print(f"evaluate     rlinf-isaac eval --ckpt-root {checkpoints}")


def plan(config: JobConfig, dataset_root: Path, norm_stats: Path | None, output: Path) -> SftJob:
    """The job of these settings. Its directory is named by everything that decides the result.

    Raises:
        InvalidJob: the norm stats at hand were computed from another dataset or for another action horizon.
        NormStatsError: they are mis-keyed or damaged.
    """
    from rlinf_isaac.data.lerobot_reader import LeRobotDataset
    from rlinf_isaac.data.norm_stats import compute_norm_stats, from_json
    from rlinf_isaac.preflight import raise_if_any

    dataset = LeRobotDataset(dataset_root)
    if norm_stats is None:
        stats = compute_norm_stats(dataset, config.model.action_horizon).to_json().encode()
    else:
        raise_if_any(check_norm_stats(norm_stats, dataset.digest, config.model.action_horizon))
        stats = norm_stats.read_bytes()
        from_json(stats, str(norm_stats))
    job = SftJob(config, dataset_root, dataset.digest, stats, output.absolute())
    name = f"{config.preset}-{json_digest(job.lineage)[:8]}"
    return SftJob(config, dataset_root, dataset.digest, stats, output.absolute() / "sft" / name)


def check_norm_stats(path: Path, dataset_digest: str, horizon: int) -> list[Problem]:
    """Problems when `path` is missing, or its ``provenance.json`` names another dataset or horizon."""
    cure = "compute them with: rlinf-isaac norm_stats --dataset DATASET, or leave --norm-stats at auto"
    if not path.is_file():
        return [Problem("no-norm-stats", f"{path} does not exist", cure)]
    provenance_file = path.parent / "provenance.json"
    if not provenance_file.is_file():
        cause = f"{path} has no provenance.json beside it: nothing says which dataset it belongs to"
        return [Problem("norm-stats-provenance", cause, cure)]
    provenance = json.loads(provenance_file.read_text())
    expected = {"dataset": dataset_digest, "action_horizon": horizon}
    return [
        Problem("norm-stats-mismatch", f"{path} is of {key}={provenance.get(key)}, this job has {value}", cure)
        for key, value in expected.items()
        if provenance.get(key) != value
    ]


def run(job: SftJob, output: Path, upload_weights: options.UploadWeights = "auto") -> Path:
    """Train as one tracked run; returns the directory that holds the checkpoints."""
    from mlflow_project.checkpoints import model_name
    from mlflow_project.lineage import digest_tags, lerobot_dataset, provenance_tags
    from mlflow_project.progress import watch
    from mlflow_project.runs import tracked_run
    from mlflow_project.sft_recorder import SftRecorder
    from rlinf_isaac.engines.local import LocalEngine

    with tracked_run("sft", output=output, name=f"sft {job.output.name}", tags=provenance_tags(PROJECT)) as tracked:
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
        watch(LocalEngine().sft(job), recorder)
    return job.output / "checkpoints"
