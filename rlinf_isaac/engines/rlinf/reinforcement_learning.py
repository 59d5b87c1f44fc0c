"""The parent's side of reinforcement learning on RLinf. It yields metrics and bundles while RLinf trains."""

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
"""RLinf's name of a metric -> the local engine's name of the same metric."""


def train(job: RlJob, runtime: Runtime) -> Iterator[Event]:
    """Train from RLinf's newest checkpoint in ``job.output``, or from ``job.start``; yields the events of the local
    engine.

    Raises:
        InvalidJob: RLinf's config has a problem, or RLinf does not support an option of the job.
        EngineFailed: RLinf failed; earlier checkpoints are kept.
        TrainingDiverged: the loss is not finite; earlier checkpoints are kept.
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

    # Write RLinf's resolved config, start Ray and the driver, and wait for workers, model and simulator.
    directory = new_run(job.output)
    frozen = freeze(rl_config(job, results, states.get(start), runtime.overrides), directory)
    environment = job_environment(job) | {"RLINF_ISAAC_SEED": str(rl.seed)}
    values: dict[str, float] = {}
    with RlinfSession(directory, runtime, environment) as session:
        driver = session.drive(directory)
        ready = yield from driver.start()
        description: dict[str, Any] = job.description | {"engine": {"name": "rlinf", **ready["versions"]}}
        yield FileSaved(frozen, "rlinf/config.yaml")
        # RLinf's runner has the training loop (rollout, advantages, update, evaluation), in the driver's process. The
        # journal's lines with its metrics arrive here one by one.
        for line in driver.order("train"):
            if line["kind"] != "metrics":
                continue
            step = line["step"]
            # The metrics of an iteration come in several lines; the last one has the losses. Collect them.
            values |= {name: value for name, value in line["values"].items() if math.isfinite(value)}
            _check_finite(line["values"], step)
            # Stop if a loss is not finite (in `_check_finite`). Go on with the next line until the losses are there.
            if step and not any(name.startswith("train/") for name in values):
                continue
            # Add the local engine's names of the same metrics, and log the iteration.
            values |= {ours: values[theirs] for theirs, ours in SAME_AS.items() if theirs in values}
            entry = Metrics(step, values)
            metrics.append(entry)
            yield entry
            values = {}
            # Make a bundle of a checkpoint that RLinf has just written, and delete RLinf's older checkpoints.
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
                    shutil.rmtree(path)  # its weights are in a bundle, and only the newest is needed to resume
            if step:
                yield Progress("rl", step, rl.iterations, f"success {entry.values.get('env/success_once', 0):.2f}")


def _check_finite(values: dict[str, float], step: int) -> None:
    wrong = [f"{name} {value}" for name, value in values.items() if name.endswith("_loss") and not math.isfinite(value)]
    if wrong:
        raise TrainingDiverged(
            f"{', '.join(wrong)} in iteration {step}; the checkpoints before it are kept. Lower rl.lr"
        )
