"""`sft`: supervised fine-tuning of pi0 on a LeRobot dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mlflow_project.cli import _base as bases
from mlflow_project.cli import _engine as engines
from mlflow_project.cli import _options as options
from mlflow_project.cli._norm_stats import print_trained
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from rlinf_isaac.config.reads import check_overrides, on_engine, with_base
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.base import Engine, SftJob
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import Problem

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.foreign.base import FoundBase
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac sft --dataset result/isaaclab_openpi/demos/stack2-0123abcd --steps 1600
  rlinf-isaac sft --base /models/pi05_base --dataset /data/generated_simdata_full --device cuda
  mlflow run . -e sft -P dataset=/data/generated_simdata_full -P base=models:/stack-cube@champion"""

KEYS = {
    "steps": "sft.steps",
    "save_interval": "sft.save_interval",
    "batch_size": "sft.batch_size",
    "lr": "sft.lr",
    "seed": "sft.seed",
    "device": "compute.device",
}


@click.command("sft", epilog=EXAMPLE)
@options.option(
    "--dataset", "LeRobot dataset: its directory, or a repo id under HF_LEROBOT_HOME; several with commas.", None
)
@options.repo_id
@options.option(
    "--base",
    "Checkpoint to start from: a directory of any published format, hf://ORG/NAME, models:/NAME@ALIAS, or a run's id.",
    "none",
)
@options.option("--norm-stats", "auto: computed from the dataset; base, base:ASSET_ID: the base's own; or a file.")
@options.option("--preset", "Preset or YAML file; auto: the base's architecture and settings, or tiny without one.")
@options.option("--steps", "Optimiser steps.")
@options.option("--save-interval", "Steps between checkpoints.")
@options.option("--batch-size", "Samples per step.")
@options.option("--lr", "Peak learning rate.")
@options.option("--seed", "Seed of weights, batches and noise.")
@options.device
@options.allow_other_data
@options.engine
@options.upload_weights
@options.output
@options.overrides
def command(output: Path, upload_weights: options.UploadWeights, **settings: Any) -> None:
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
            checked = check(findings, output=output, **settings)
        assert checked is not None
        root, *mixed_with = checked.datasets
        suffix = engines.suffix(settings["engine"])
        job = plan(checked.config, root, checked.norm_stats, output, suffix, checked.base, mixed_with)
        with preflight() as findings:
            findings.add(check_carried(job, options.to_overrides(settings, KEYS, settings["overrides"])))
        checkpoints = run(job, output, upload_weights, engines.chosen_engine(settings), checked.allowed)
        stdout.print(f"checkpoints  {checkpoints}")
        stdout.print(f"evaluate     rlinf-isaac eval --ckpt-root {checkpoints}")
        if (raw := checkpoints.with_name("checkpoints-raw")).is_dir():  # on the same seeds, for `compare` to pair
            stdout.print(f"             rlinf-isaac eval --ckpt-root {raw}")


class Checked(NamedTuple):
    """Options that were checked: the config, roots of the datasets, the given norm stats, the differences between
    dataset and task that ``--allow-mismatch`` lets pass, and the base."""

    config: JobConfig
    datasets: tuple[Path, ...]
    norm_stats: Path | bases.ForeignNormStats | None
    allowed: tuple[Problem, ...]
    base: FoundBase | None = None


def check(
    findings: Findings,
    *,
    dataset: str,
    repo_id: str,
    norm_stats: str,
    base: str,
    preset: str,
    allow_mismatch: bool,
    output: Path,
    overrides: str,
    quick: bool = False,
    **chosen: str,
) -> Checked | None:
    """Check these options; what `plan` needs, unless `findings` has errors.

    With `quick` a large dataset that was never hashed is not hashed now, and a warning says so.
    """
    from rlinf_isaac.preflight import (
        check_config,
        check_device,
        check_free_space,
        check_memory,
        check_shared_memory,
        check_simulator,
        check_trainable,
        check_training_data,
    )
    from rlinf_isaac.preflight.dataset import allowed, check_held_out
    from rlinf_isaac.preflight.machine import training_bytes
    from rlinf_isaac.preflight.mixture import check_mixture

    config = None
    roots: tuple[Path, ...] = ()
    form = with_base(on_engine("sft", chosen["engine"]), base != bases.NONE)
    changes = [*options.to_overrides(chosen, KEYS, overrides), *_of_torchrun()]
    findings.add(check_overrides(form, changes))
    found_base, given = bases.find(findings, base), None
    with findings.collect():
        if found_base is not None or base == bases.NONE:
            config = bases.config_of(found_base, preset, changes)
            findings.add([*check_config(config, form, changes), *check_device(config, form)])
            findings.add(check_shared_memory(config, form))
    with findings.collect():
        roots = options.find_datasets(dataset, repo_id)
    with findings.collect():
        if found_base is not None or base == bases.NONE:
            given = bases.choose_norm_stats(norm_stats, found_base)
    if config is None or not roots or findings.errors:
        return None
    if found_base is not None:
        bases.check(findings, found_base, config)
    findings.add([*check_trainable(config, has_base=found_base is not None), *check_memory(config, form)])
    findings.add(check_free_space(output, training_bytes(config)))
    if config.sft.eval_interval:
        findings.add(check_simulator(config))
    file, found = given if isinstance(given, Path) else None, []
    for root in roots:
        found += check_training_data(config, root, file if len(roots) == 1 else None, quick=quick, allow=allow_mismatch)
    findings.add(found)
    with findings.collect():
        findings.add([*check_mixture(config, roots, file), *check_held_out(config, roots)])
    if isinstance(given, bases.ForeignNormStats):
        bases.check_norm_stats(findings, given, config)
    engines.check_engine(findings, chosen, [SftJob(config, roots[0], "", b"", output, mixed_with=roots[1:])])
    return Checked(config, roots, given, tuple(allowed(found)), found_base)


def _of_torchrun() -> list[str]:
    """What torchrun decides of the job."""
    place = launch()
    return [] if place is None else [f"compute.num_processes={place.size}"]


def plan(
    config: JobConfig,
    dataset_root: Path,
    norm_stats: Path | bases.ForeignNormStats | None,
    output: Path,
    suffix: str = "",
    base: FoundBase | None = None,
    mixed_with: Sequence[Path] = (),
) -> SftJob:
    """The job of these settings, checked before; `mixed_with` are the roots of further datasets. Its directory is named
    by everything that decides the result, and ends with `suffix`. Prints which base and norm stats it has.

    Raises:
        DatasetError: a data file is damaged.
    """
    from rlinf_isaac.data.mixture import open_datasets
    from rlinf_isaac.data.norm_stats import compute_norm_stats, settings_of
    from rlinf_isaac.engines.local.sft.memory import choose_sharding
    from rlinf_isaac.preflight.memory import gpu_memory

    dataset = open_datasets((dataset_root, *mixed_with), config.sft.mix)
    if norm_stats is None:
        stats = compute_norm_stats(dataset, **settings_of(config)).to_json().encode()
        origin = f"computed from the dataset {dataset.root}"
    elif isinstance(norm_stats, bases.ForeignNormStats):
        stats, origin = norm_stats.data, norm_stats.origin
    else:
        stats, origin = norm_stats.read_bytes(), f"given, {norm_stats}"
    sealed = None
    if base is not None:
        sealed = bases.seal(base, config, norm_stats if isinstance(norm_stats, bases.ForeignNormStats) else None)
    print_trained(stats, origin)
    available = gpu_memory() if config.compute.device.startswith("cuda") else None
    processes, sharding = config.compute.num_processes, choose_sharding(config, available)
    config = replace(config, compute=replace(config.compute, num_processes=1, sharding="auto"))
    job = SftJob(
        config,
        dataset_root,
        dataset.digest,
        stats,
        output.absolute(),
        base=sealed,
        mixed_with=tuple(mixed_with),
        processes=processes,
        sharding=sharding,
    )
    return replace(job, output=job.output / "sft" / f"{config.preset}-{json_digest(job.lineage)[:8]}{suffix}")


def run(
    job: SftJob,
    output: Path,
    upload_weights: options.UploadWeights = "auto",
    engine: Engine | None = None,
    allowed: Sequence[Problem] = (),
) -> Path:
    """Train as one tracked run, on the local engine if none is given; returns the directory of the checkpoints.

    The run is tagged with the differences that are `allowed`.
    """
    from mlflow_project.comparison.evaluations import mismatch_tags
    from mlflow_project.lineage.provenance import digest_tags, lerobot_datasets, provenance_tags
    from mlflow_project.recorders.logged_checkpoints import fine_tuning_words, model_name
    from mlflow_project.recorders.sft_recorder import SftRecorder
    from mlflow_project.tracking.progress import watch
    from mlflow_project.tracking.runs import tracked_run
    from rlinf_isaac.engines.local import LocalEngine

    engine = engine or LocalEngine()
    if (place := launch()) is not None and not place.first:
        for _ in engine.sft(job):  # the first process records
            pass
        return job.output / "checkpoints"
    tags = provenance_tags(PROJECT) | engine.tags()
    how = fine_tuning_words(job.config.sft.trainable, None if job.base is None else job.base.named.name)
    with tracked_run("sft", output=output, name=f"sft {job.output.name}{how}", tags=tags) as tracked:
        values = asdict(job.config)
        values["compute"] |= {"num_processes": job.processes, "sharding": job.sharding if job.processes > 1 else "none"}
        sections = ("preset", "model", "policy", "sft", "compute")
        tracked.recorder.params({section: values[section] for section in sections})
        tracked.recorder.tags(digest_tags(job.lineage) | mismatch_tags(allowed))
        if job.base is not None:
            tracked.recorder.tags(bases.tags(job.base))
        recorder = SftRecorder(
            tracked.recorder,
            model_name=model_name(job.config.preset, pi05=job.config.model.pi05),
            datasets=lerobot_datasets(job.datasets, job.dataset_digest),
            upload_weights=upload_weights,
        )
        watch(engine.sft(job), recorder)
    return job.output / "checkpoints"
