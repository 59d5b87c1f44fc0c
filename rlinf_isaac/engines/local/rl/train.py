"""Reinforcement learning of a checkpoint: each iteration computes rollouts, advantages and an update.

Every random choice (reset seeds, flow noise, stochastic denoising steps, minibatches) is a function of (rl.seed,
iteration, episode, call). So a run that is killed and resumed from its last checkpoint ends with the same weights as an
uninterrupted one, on the same machine with the same number of processes, workers and threads.

Several processes train together by data parallelism: each plays its share of the episodes in environments of its own
and keeps what it has played, and all have the same weights, because they step with the same sums of gradients. The
first process alone writes files and announces them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl.experience import Experience, Played, make_experience, ordered
from rlinf_isaac.engines.local.rl.explorer import Rollout
from rlinf_isaac.engines.local.rl.memory import LESS_MEMORY
from rlinf_isaac.engines.local.rl.player import Result
from rlinf_isaac.engines.local.rl.players import Players
from rlinf_isaac.engines.local.rl.progress import IterationProgress
from rlinf_isaac.engines.local.rl.saving import save, saved
from rlinf_isaac.engines.local.rl.share import share_of
from rlinf_isaac.engines.local.rl.start import load_policy_and_optimisers
from rlinf_isaac.engines.local.rl.update import update
from rlinf_isaac.engines.local.sft.device_memory import explained, peak_memory
from rlinf_isaac.engines.local.training.processes import train_together
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.local.training.training_state import TrainingState
from rlinf_isaac.engines.resume import MetricsLog, metrics_log, resume
from rlinf_isaac.ground.events import Event, Metrics


def train(job: RlJob) -> Iterator[Event]:
    """Train from the last checkpoint in ``job.output``, or from ``job.start``; yields every checkpoint and metric.

    Raises:
        TrainingDiverged: a loss or the gradient is not finite; earlier checkpoints are kept.
        TrainingOutOfMemory: the device has too little memory; earlier checkpoints are kept.
        InvalidJob: so much is known before the first episode.
        RlinfIsaacError: a process died.
    """
    return train_together(job, train_as)


def train_as(job: RlJob, team: Team) -> Iterator[Event]:
    """Run `train` in one process of `team`."""
    with explained(job.config, LESS_MEMORY):
        yield from _train(job, team)


def _train(job: RlJob, team: Team) -> Iterator[Event]:
    rl, config = job.config.rl, share_of(job.config, team)
    checkpoints = job.output / "checkpoints"
    metrics = metrics_log(job.output)
    state = TrainingState(job.output / "training_state")
    start = yield from resume(job.output, "rl", rl.iterations, [state.step], saved, alone=team.first)
    if start is None:
        return

    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    # Load the policy and value head of the start checkpoint, or of the checkpoint to resume from.
    policy, optimisers = load_policy_and_optimisers(
        replace(job, config=config), read_bundle(checkpoints / str(start)) if start else None
    )
    if start:
        optimisers.restore(state, start)
    norm_stats = job.start.norm_stats_bytes
    device = policy.model.action_in_proj.weight.device
    shown = IterationProgress(start, rl.iterations)
    with Players(config, norm_stats, policy, job.env_python, neighbours=team.here) as players:
        if not start and rl.eval_interval:
            yield _logged(metrics, Metrics(0, _evaluate(players, rl, team)), team)
        for iteration in range(start + 1, rl.iterations + 1):
            # 1. Rollout: play the episodes of the iteration with exploration noise, on seeds that were never used.
            began = time.perf_counter()
            #    Each process plays its share of them, a range of their indices.
            seeds = training_seeds(rl, iteration)
            own = range(len(seeds))[team.rows(len(seeds))]
            playing = players.explore(seeds[own.start : own.stop], own, iteration)
            rollouts = yield from shown.playing(playing, len(own))
            played, rows = ordered([episode for rollout in rollouts for episode in rollout.episodes])
            collected = time.perf_counter()
            # 2. Score the action chunks by the kernels of the update where they are not those of the rollout.
            changes = players.rescore(rows)
            scored = time.perf_counter()
            # 3. Compute advantages and returns of every action chunk: by GAE from rewards and values (PPO), or relative
            #    to the returns of the group (GRPO). They are normalised over the chunks of all processes.
            buffer = players.buffer
            experience = make_experience(played, rows, buffer.log_prob, buffer.value, rl, team)
            gathered = time.perf_counter()
            # 4. Update policy and value head: `rl.epochs` passes over the chunks in random minibatches.
            updating = update(rl, optimisers, experience, iteration, players, team)
            values = yield from shown.updating(updating)
            updated = time.perf_counter()
            times = {"rollout": collected - began, "scoring": scored - collected, "update": updated - gathered}
            parts = team.gather(
                Part(
                    [each._replace(episodes=[]) for each in rollouts],
                    times | ({"wait_for_processes": gathered - scored} if team.size > 1 else {}),
                    changes,
                    players.memory() | peak_memory(device),
                )
            )
            values |= rollout_metrics(experience.episodes, experience) | metrics_of_parts(parts, experience)
            # 5. If due, evaluate on the held-out seeds without exploration noise.
            last = iteration == rl.iterations
            if rl.eval_interval and (last or iteration % rl.eval_interval == 0):
                values |= _evaluate(players, rl, team)
                values["time/evaluation_s"] = time.perf_counter() - updated
            yield _logged(metrics, Metrics(iteration, values), team)
            # 6. If due, save a checkpoint and the optimisers' state. All processes have the same.
            if team.first and (last or iteration % rl.save_interval == 0):
                yield from save(job, state, policy, optimisers, iteration)
            yield shown.finished(f"success {values['rollout/success_once']:.2f}")


def training_seeds(rl: RlConfig, iteration: int) -> list[int]:
    """Reset seeds of the episodes of `iteration` (1-based). Iterations share no seed; the episodes of a GRPO group have
    the same seed."""
    count = rl.episodes // rl.group_size if rl.algorithm == "grpo" else rl.episodes
    first = rl.first_seed + (iteration - 1) * count
    return [seed for seed in range(first, first + count) for _ in range(rl.episodes // count)]


def evaluation_seeds(rl: RlConfig) -> list[int]:
    """Reset seeds of the periodic evaluation; they are always the same and never used for training."""
    return list(range(rl.eval_first_seed, rl.eval_first_seed + rl.eval_episodes))


class Part(NamedTuple):
    """What one process measures in an iteration: its rollouts without their episodes, the seconds that it spent by
    name, what `Players.rescore` has returned, and GiB of memory by metric."""

    rollouts: Sequence[Rollout]
    seconds: Mapping[str, float]
    changes: np.ndarray
    memory: Mapping[str, float]


def metrics_of_parts(parts: Sequence[Part], experience: Experience) -> dict[str, float]:
    """Metrics of what the processes have measured: times are means over them, memory is the largest."""
    rollouts = [rollout for part in parts for rollout in part.rollouts]
    seconds = {name: float(np.mean([part.seconds[name] for part in parts])) for name in parts[0].seconds}
    slowest = max(part.seconds["rollout"] for part in parts)
    return {
        **_speed(rollouts, experience.episodes, slowest),
        **{f"time/{name}_s": value for name, value in seconds.items()},
        **log_ratio_metrics(np.concatenate([part.changes for part in parts])),
        **{name: max(part.memory[name] for part in parts) for name in parts[0].memory},
    }


def log_ratio_metrics(changes: np.ndarray) -> dict[str, float]:
    """Median, 99th percentile and maximum of what `Players.rescore` returns; nothing if nothing was scored again."""
    if not len(changes):
        return {}
    found = np.quantile(changes, [0.5, 0.99, 1.0])
    return {
        f"rollout/log_ratio_{name}": float(value) for name, value in zip(("median", "p99", "max"), found, strict=True)
    }


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


def _evaluate(players: Players, rl: RlConfig, team: Team) -> dict[str, float]:
    """Play the held-out seeds, each process its share of them; metrics of all. Collective call of the team."""
    own = players.evaluate(evaluation_seeds(rl)[team.rank :: team.size])
    return evaluation_metrics(sorted(result for part in team.gather(own) for result in part))


def evaluation_metrics(results: Sequence[Result]) -> dict[str, float]:
    """Success and length on the held-out seeds."""
    return {
        "heldout/success_once": float(np.mean([each.success for each in results])),
        "heldout/episode_length": float(np.mean([each.length for each in results])),
    }


def _speed(rollouts: Sequence[Rollout], played: Sequence[Played], seconds: float) -> dict[str, float]:
    busy = sum(rollout.seconds for rollout in rollouts)
    return {
        "time/env_steps_per_second": sum(each.length for each in played) / seconds,
        "time/policy_calls_per_second": sum(rollout.calls for rollout in rollouts) / seconds,
        "time/policy_share_of_rollout": sum(rollout.policy_seconds for rollout in rollouts) / busy,
        "time/policy_s": sum(rollout.policy_seconds for rollout in rollouts) / len(rollouts),
        "time/env_wait_s": sum(rollout.wait_seconds for rollout in rollouts) / len(rollouts),
        "time/gpu_wait_share": sum(rollout.wait_seconds for rollout in rollouts) / busy,
    }


def _logged(log: MetricsLog, entry: Metrics, team: Team) -> Metrics:
    if team.first:
        log.append(entry)
    return entry
