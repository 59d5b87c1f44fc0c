"""Reinforcement learning on RLinf, as seen from the parent: metrics and bundles as they appear."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from typing import Any

from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.resume import metrics_log, resume
from rlinf_isaac.engines.rlinf.bundles import find_checkpoints, make_bundle_of
from rlinf_isaac.engines.rlinf.config import rl_config
from rlinf_isaac.engines.rlinf.run import freeze, job_environment, new_run
from rlinf_isaac.engines.rlinf.runtime import Runtime
from rlinf_isaac.engines.rlinf.session import RlinfSession
from rlinf_isaac.ground.atomic import locked
from rlinf_isaac.ground.errors import TrainingDiverged
from rlinf_isaac.ground.events import CheckpointSaved, Event, FileSaved, Metrics, Progress

SAME_AS = {
    "env/success_once": "rollout/success_once",
    "env/return": "rollout/episode_return",
    "env/episode_len": "rollout/episode_length",
    "eval/success_once": "heldout/success_once",
    "eval/episode_len": "heldout/episode_length",
    "train/actor/approx_kl": "train/approx_kl",
    "train/actor/clip_fraction": "train/clip_fraction",
    "train/actor/grad_norm": "train/grad_norm",
    "train/actor/policy_loss": "train/actor_loss",
    "train/critic/value_loss": "train/critic_loss",
    "train/critic/explained_variance": "train/explained_variance",
}
"""RLinf's name -> the local engine's for the same."""


def train(job: RlJob, runtime: Runtime) -> Iterator[Event]:
    """Train from RLinf's newest checkpoint in ``job.output``, or from ``job.start``; yields as the local engine.

    Raises:
        InvalidJob: RLinf's config does not fit, or the job asks for what RLinf does not offer.
        EngineFailed: RLinf failed; checkpoints saved before stay.
        TrainingDiverged: the loss is not finite; checkpoints saved before stay.
    """
    job.output.mkdir(parents=True, exist_ok=True)
    with locked(job.output):
        yield from _train(job, runtime)


def _train(job: RlJob, runtime: Runtime) -> Iterator[Event]:
    rl = job.config.rl
    bundles, results = job.output / "checkpoints", job.output / "rlinf"
    metrics, states = metrics_log(job.output), find_checkpoints(results)
    start = yield from resume(job.output, "rl", rl.iterations, states)
    if start is None:
        return

    directory = new_run(job.output)
    frozen = freeze(rl_config(job, results, states.get(start), runtime.overrides), directory)
    environment = job_environment(job) | {"RLINF_ISAAC_SEED": str(rl.seed)}
    values: dict[str, float] = {}
    with RlinfSession(directory, runtime, environment) as session:
        driver = session.drive(directory)
        ready = yield from driver.start()
        description: dict[str, Any] = job.description | {"engine": {"name": "rlinf", **ready["versions"]}}
        yield FileSaved(frozen, "rlinf/config.yaml")
        # RLinf trains in the driver's process; what it logs arrives here line by line.
        for line in driver.order("train"):
            if line["kind"] != "metrics":
                continue
            step = line["step"]
            # An iteration's values come in several lines. Those of the losses are the last.
            values |= {name: value for name, value in line["values"].items() if math.isfinite(value)}
            _check_finite(line["values"], step)
            if step and not any(name.startswith("train/") for name in values):  # RLinf logs them last
                continue
            # What the local engine measures, too, has its name as well.
            values |= {ours: values[theirs] for theirs, ours in SAME_AS.items() if theirs in values}
            entry = Metrics(step, values)
            metrics.append(entry)
            yield entry
            values = {}
            # A checkpoint that RLinf has written becomes a bundle; older ones of its own make room.
            for saved_step, path in sorted(find_checkpoints(results).items()):
                if saved_step == step:
                    bundle = make_bundle_of(
                        path,
                        bundles / str(step),
                        model=job.config.model,
                        config=description,
                        norm_stats=job.start.norm_stats_bytes,
                        asset_id=job.start.asset_id,
                        step=step,
                        lineage=job.lineage,
                    )
                    yield CheckpointSaved(step, bundle.path, bundle.digest)
                elif saved_step < step:
                    shutil.rmtree(path)  # its bundle holds the weights; the newest is enough to go on from
            if step:
                yield Progress("rl", step, rl.iterations, f"success {entry.values.get('env/success_once', 0):.2f}")


def _check_finite(values: dict[str, float], step: int) -> None:
    wrong = [f"{name} {value}" for name, value in values.items() if name.endswith("_loss") and not math.isfinite(value)]
    if wrong:
        raise TrainingDiverged(
            f"{', '.join(wrong)} in iteration {step}; the checkpoints before it are kept. Lower rl.lr"
        )
