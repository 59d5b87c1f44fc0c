"""The parent's side of a fine-tuning on RLinf. It yields metrics and bundles while RLinf trains."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.lerobot.resolve import resolve_dataset
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.resume import metrics_log, resume
from rlinf_isaac.engines.rlinf.bundles import find_checkpoints, make_bundle_of
from rlinf_isaac.engines.rlinf.config import sft_config
from rlinf_isaac.engines.rlinf.run import freeze, job_environment, new_run
from rlinf_isaac.engines.rlinf.runtime import Runtime
from rlinf_isaac.engines.rlinf.session import RlinfSession
from rlinf_isaac.ground.atomic import locked, write_file
from rlinf_isaac.ground.events import CheckpointSaved, Event, FileSaved, Metrics, Progress


def train(job: SftJob, runtime: Runtime) -> Iterator[Event]:
    """Train from RLinf's newest checkpoint in ``job.output``, or from scratch; yields the events of the local engine.

    Raises:
        InvalidJob: RLinf's config has a problem.
        EngineFailed: RLinf failed; earlier checkpoints are kept.
    """
    job.output.mkdir(parents=True, exist_ok=True)
    with locked(job.output):
        yield from _train(job, runtime)


def _train(job: SftJob, runtime: Runtime) -> Iterator[Event]:
    config = job.config.sft
    results = job.output / "rlinf"
    metrics, states = metrics_log(job.output), find_checkpoints(results)
    start = yield from resume(job.output, "sft", config.steps, states)
    if start is None:
        return

    directory = new_run(job.output)
    norm_stats = results / "norm_stats.json"
    frozen = freeze(sft_config(job, norm_stats, results, states.get(start), runtime.overrides), directory)
    write_file(norm_stats, job.norm_stats)
    description = job.description(LeRobotDataset(job.dataset))
    seen: dict[str, list[float]] = {}
    # Whatever of LeRobot is at work in these processes finds the dataset, too, and never asks the hub for it.
    environment = resolve_dataset(job.dataset).environment | job_environment(job)
    with RlinfSession(directory, runtime, environment) as session:
        driver = session.drive(directory)
        ready = yield from driver.start()
        description["engine"] = {"name": "rlinf", **ready["versions"]}
        yield FileSaved(frozen, "rlinf/config.yaml")
        # RLinf trains in the driver's process. The journal's lines with its metrics arrive here one by one.
        for line in driver.order("train"):
            if line["kind"] != "metrics":
                continue
            step = line["step"]
            # Collect the values of each metric since the last log.
            for name, value in line["values"].items():
                seen.setdefault(name, []).append(value)
            if "train/loss" not in line["values"]:  # RLinf logs the times of a step before its losses
                continue
            # If due, log the means.
            if step % config.log_interval == 0 or step == config.steps:
                entry = Metrics(step, _summary(seen, config.batch_size))
                metrics.append(entry)
                yield entry
                seen = {}
            # Make a bundle of a checkpoint that RLinf has just written, and delete RLinf's older checkpoints.
            for saved_step, path in sorted(find_checkpoints(results).items()):
                if saved_step == step:
                    yield _seal(job, path, step, description)
                elif saved_step < step:
                    shutil.rmtree(path)  # its weights are in a bundle, and only the newest is needed to resume
            yield Progress("sft", step, config.steps, f"loss {line['values']['train/loss']:.4f}")


def _seal(job: SftJob, path: Path, step: int, description: dict) -> CheckpointSaved:
    bundle = make_bundle_of(
        path,
        job.output / "checkpoints" / str(step),
        model=job.config.model,
        config=description,
        norm_stats=job.norm_stats,
        asset_id=job.config.policy.asset_id,
        step=step,
        lineage=job.lineage,
    )
    return CheckpointSaved(step, bundle.path, bundle.digest)


def _summary(seen: dict[str, list[float]], batch_size: int) -> dict[str, float]:
    """Means over the steps since the last summary, but the last value of the learning rate; and the training speed."""
    values = {name: float(np.mean(each)) for name, each in seen.items()}
    values["train/learning_rate"] = seen["train/learning_rate"][-1]
    rate = 1 / values["time/step"]
    return values | {"time/steps_per_second": rate, "time/samples_per_second": rate * batch_size}
