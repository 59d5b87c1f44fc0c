"""Reinforcement learning of a checkpoint: each iteration computes rollouts, advantages and an update.

Every random choice (reset seeds, flow noise, stochastic denoising steps, minibatches) is a function of (rl.seed,
iteration, episode, call). So a run that is killed and resumed from its last checkpoint ends with the same weights as an
uninterrupted one, on the same machine with the same number of workers and threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rlinf_isaac.checkpoint.write_bundle import write_bundle
from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl.course import Iteration
from rlinf_isaac.engines.local.rl.experience import Experience, Played, make_experience
from rlinf_isaac.engines.local.rl.explorer import Rollout
from rlinf_isaac.engines.local.rl.states import States
from rlinf_isaac.engines.local.rl.update import make_optimiser, update
from rlinf_isaac.engines.local.rl.watch import Watch
from rlinf_isaac.engines.local.rl.workers import Result, RolloutWorkers
from rlinf_isaac.engines.local.training.training_state import optimiser_tensors
from rlinf_isaac.engines.policies import load_with_heads
from rlinf_isaac.engines.resume import MetricsLog, metrics_log, resume
from rlinf_isaac.ground.atomic import locked
from rlinf_isaac.ground.errors import TrainingDiverged
from rlinf_isaac.ground.events import CheckpointSaved, Event, Metrics, Progress
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.model import Pi0


def train(job: RlJob) -> Iterator[Event]:
    """Train from the last checkpoint in ``job.output``, or from ``job.start``; yields every checkpoint and metric.

    Raises:
        TrainingDiverged: a loss or the gradient is not finite, and there is no guard; or the policy collapsed, and
            there is neither a roll-back left nor a checkpoint to end with. Earlier checkpoints are kept.
        RlinfIsaacError: a worker process died.
    """
    job.output.mkdir(parents=True, exist_ok=True)
    with locked(job.output):
        watch = Watch(job)
        yield from _train(job, watch)
        yield watch.result()


def _train(job: RlJob, watch: Watch) -> Iterator[Event]:
    rl = job.config.rl
    metrics = metrics_log(job.output)
    states = States(job.output)
    start = yield from resume(job.output, "rl", rl.iterations, states.steps, position=watch.position)
    yield from watch.begin(start)
    if start is None or watch.ended:
        return

    if job.config.compute.threads:
        torch.set_num_threads(job.config.compute.threads)
    # Load the policy and value head of the start checkpoint, or of the checkpoint to resume from.
    policy = load_actor_critic(job)
    optimiser = states.restore(watch.course.weights, job, policy) if start else make_optimiser(policy)
    norm_stats = job.start.norm_stats_bytes
    with RolloutWorkers(job.config, norm_stats, policy, job.env_python) as players:
        if not start and rl.eval_interval:
            results = players.evaluate(evaluation_seeds(rl))
            yield _logged(metrics, Metrics(0, evaluation_metrics(results)))
            watch.see(observed(0, [], {}, results, 0.0))
            yield from watch.record()
        for iteration in range(start + 1, rl.iterations + 1):
            # 1. Rollout: play the episodes of the iteration with exploration noise, on seeds that were never used.
            began = time.perf_counter()
            played: list[Played] = []
            values: dict[str, float] = {}
            results = []
            diverged = ""
            try:
                rollouts = players.explore(training_seeds(rl, iteration), iteration)
                # 2. Compute advantages and returns of every action chunk: by GAE from rewards and values (PPO), or
                #    relative to the returns of the group (GRPO).
                played = [episode for rollout in rollouts for episode in rollout.episodes]
                experience = make_experience(played, rl)
                collected = time.perf_counter()
                values = rollout_metrics(played, experience) | _speed(rollouts, played, collected - began)
                # 3. Update policy and value head: `rl.epochs` passes over the chunks in random minibatches.
                depth, factor = watch.depth, watch.lr_factor
                values |= update(
                    policy, optimiser, experience, iteration, players.gradients, depth=depth, lr_factor=factor
                )
                updated = time.perf_counter()
                values |= {"time/rollout_s": collected - began, "time/update_s": updated - collected}
                # 4. If due, evaluate on the held-out seeds without exploration noise.
                if rl.eval_interval and (iteration == rl.iterations or iteration % rl.eval_interval == 0):
                    results = players.evaluate(evaluation_seeds(rl))
                    values |= evaluation_metrics(results)
                    values["time/evaluation_s"] = time.perf_counter() - updated
            except TrainingDiverged as error:
                if not rl.guard:
                    raise
                diverged = str(error)
            # 5. Decide: the training goes on, goes back to an earlier checkpoint, or ends.
            seconds = time.perf_counter() - began
            seen = watch.see(observed(iteration, played, values, results, seconds), diverged)
            yield _logged(metrics, Metrics(iteration, values | watch.metrics()))
            yield from watch.record()
            if seen.back_to is not None:
                optimiser = states.restore(seen.back_to, job, policy)
            # 6. If due, save a checkpoint and the optimiser's state.
            if seen.saved:
                yield _save(job, states, policy, optimiser, iteration, watch.needed)
            yield Progress("rl", iteration, rl.iterations, watch.note())
            if seen.ended:
                break


def load_actor_critic(job: RlJob) -> FlowActorCritic:
    """The start checkpoint's policy in eval mode, as in the rollouts, with its value and noise heads if it has them."""
    device = torch.device(job.config.compute.device)
    policy = FlowActorCritic(Pi0(job.config.model).to(device).eval(), job.config.policy, job.config.rl)
    load_with_heads(job.start, policy.checkpoint_module())
    return policy


def training_seeds(rl: RlConfig, iteration: int) -> list[int]:
    """Reset seeds of the episodes of `iteration` (1-based). Iterations share no seed; the episodes of a GRPO group have
    the same seed."""
    count = rl.episodes // rl.group_size if rl.algorithm == "grpo" else rl.episodes
    first = rl.first_seed + (iteration - 1) * count
    return [seed for seed in range(first, first + count) for _ in range(rl.episodes // count)]


def evaluation_seeds(rl: RlConfig) -> list[int]:
    """Reset seeds of the periodic evaluation; they are always the same and never used for training."""
    return list(range(rl.eval_first_seed, rl.eval_first_seed + rl.eval_episodes))


def rollout_metrics(played: Sequence[Played], experience: Experience) -> dict[str, float]:
    """Metrics of the training episodes of an iteration."""
    subtasks = sorted({name for each in played for chunk in each.subtasks for name in chunk})
    reached = {
        f"rollout/subtask/{name}": float(np.mean([any(name in chunk for chunk in each.subtasks) for each in played]))
        for name in subtasks
    }
    return {
        "rollout/success_once": float(np.mean([each.success for each in played])),
        "rollout/episode_length": float(np.mean([each.length for each in played])),
        "rollout/episode_return": float(np.mean([each.rewards.sum() for each in played])),
        "rollout/value": float(experience.values.mean()),
        "rollout/chunks": float(len(experience)),
        **reached,
    }


def evaluation_metrics(results: Sequence[Result]) -> dict[str, float]:
    """Success and length on the held-out seeds."""
    return {
        "heldout/success_once": float(np.mean([each.success for each in results])),
        "heldout/episode_length": float(np.mean([each.length for each in results])),
    }


def outcomes(results: Sequence[Result]) -> tuple[bool, ...]:
    """Outcomes in the order of the held-out seeds."""
    return tuple(each.success for each in results)


def observed(
    iteration: int, played: Sequence[Played], values: Mapping[str, float], results: Sequence[Result], seconds: float
) -> Iteration:
    """What an iteration has shown, for the watch."""
    return Iteration(
        iteration,
        iteration - 1,
        sum(each.success for each in played),
        len(played),
        outcomes(results),
        values.get("train/final_approx_kl"),
        values.get("train/clip_fraction"),
        seconds,
    )


def _speed(rollouts: Sequence[Rollout], played: Sequence[Played], seconds: float) -> dict[str, float]:
    busy = sum(rollout.seconds for rollout in rollouts)
    return {
        "time/env_steps_per_second": sum(each.length for each in played) / seconds,
        "time/policy_calls_per_second": sum(rollout.calls for rollout in rollouts) / seconds,
        "time/policy_share_of_rollout": sum(rollout.policy_seconds for rollout in rollouts) / busy,
    }


def _logged(log: MetricsLog, entry: Metrics) -> Metrics:
    log.append(entry)
    return entry


def _save(
    job: RlJob, states: States, policy: FlowActorCritic, optimiser: torch.optim.AdamW, iteration: int, needed: int
) -> CheckpointSaved:
    path = job.output / "checkpoints" / str(iteration)
    whole = policy.checkpoint_module()
    description: dict[str, Any] = job.description
    bundle = write_bundle(
        path,
        state_dict=whole.state_dict(),
        config=description,
        norm_stats=job.start.norm_stats_bytes,
        asset_id=job.start.asset_id,
        step=iteration,
        lineage=job.lineage,
        overwrite=True,  # a run killed before it saved the optimiser state has left the same bytes
    )
    states.save(iteration, optimiser_tensors(whole, optimiser), needed)
    return CheckpointSaved(iteration, path, bundle.digest)
