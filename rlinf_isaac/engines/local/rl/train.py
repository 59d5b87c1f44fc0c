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
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl.course import Iteration
from rlinf_isaac.engines.local.rl.experience import Experience, Played, make_experience, ordered
from rlinf_isaac.engines.local.rl.explorer import Rollout
from rlinf_isaac.engines.local.rl.memory import LESS_MEMORY
from rlinf_isaac.engines.local.rl.player import Result
from rlinf_isaac.engines.local.rl.players import Players
from rlinf_isaac.engines.local.rl.progress import IterationProgress
from rlinf_isaac.engines.local.rl.saving import save, saved
from rlinf_isaac.engines.local.rl.share import share_of
from rlinf_isaac.engines.local.rl.states import States
from rlinf_isaac.engines.local.rl.update import update
from rlinf_isaac.engines.local.rl.watch import Watch
from rlinf_isaac.engines.local.sft.device_memory import explained, peak_memory
from rlinf_isaac.engines.local.sft.saving import ADAPTERS
from rlinf_isaac.engines.local.training.processes import train_together
from rlinf_isaac.engines.local.training.retention import Retention
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.engines.resume import MetricsLog, metrics_log, resume
from rlinf_isaac.ground.errors import TrainingDiverged
from rlinf_isaac.ground.events import Event, Metrics, Resumed

T = TypeVar("T")


def train(job: RlJob) -> Iterator[Event]:
    """Train from the last checkpoint in ``job.output``, or from ``job.start``; yields every checkpoint and metric, what
    the guard decides, and at last which checkpoint is the result.

    Raises:
        TrainingDiverged: a loss or the gradient is not finite, and there is no guard; or the policy collapsed, and
            there is neither a roll-back left nor a checkpoint to end with. Earlier checkpoints are kept.
        TrainingOutOfMemory: the device has too little memory; earlier checkpoints are kept.
        InvalidJob: so much is known before the first episode.
        RlinfIsaacError: a process died.
    """
    return train_together(job, train_as)


def train_as(job: RlJob, team: Team) -> Iterator[Event]:
    """Run `train` in one process of `team`."""
    watch = Watch(job, writes=team.first)
    with explained(job.config, LESS_MEMORY):
        yield from _train(job, team, watch)
    if team.first:
        yield watch.result()


def _train(job: RlJob, team: Team, watch: Watch) -> Iterator[Event]:
    rl, config = job.config.rl, share_of(job.config, team)
    metrics, states = metrics_log(job.output), States(job.output)
    start = yield from resume(
        job.output,
        "rl",
        rl.iterations,
        states.steps,
        saved,
        alone=team.first,
        position=watch.position,
        announced=False,
    )
    yield from watch.begin(start)
    retention = Retention(job.output, (ADAPTERS,), job.guardian)
    if team.first:
        yield from retention.begin()
        if start != 0:
            yield from retention.keep(watch.kept())
    if start is None or watch.ended:
        return
    if team.first and start:
        yield Resumed("rl", start, rl.iterations)

    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    # Load the policy and value head of the start checkpoint, or of the checkpoint to resume from.
    own_job = replace(job, config=config)
    policy, optimisers = states.load(own_job, watch.course.weights)
    device = policy.model.action_in_proj.weight.device
    shown = IterationProgress(start, rl.iterations)
    with Players(config, job.start.norm_stats_bytes, policy, job.env_python, neighbours=team.here) as players:
        if not start and rl.eval_interval:
            results = _evaluate(players, rl, team)
            yield _logged(metrics, Metrics(0, evaluation_metrics(results)), team)
            watch.see(observed(0, [], {}, results, 0.0))
            yield from watch.record()
        for iteration in range(start + 1, rl.iterations + 1):
            began = time.perf_counter()
            played: Sequence[Played] = []
            values: dict[str, float] = {}
            results = []
            diverged = ""
            try:
                # 1. Rollout: play the episodes of the iteration with exploration noise, on seeds that were never used.
                #    Each process plays its share of them, a range of their indices.
                seeds = training_seeds(rl, iteration)
                own = range(len(seeds))[team.rows(len(seeds))]
                playing = players.explore(seeds[own.start : own.stop], own, iteration)
                rollouts = yield from _finite_in_all(shown.playing(playing, len(own)), team)
                own_episodes, rows = ordered([episode for rollout in rollouts for episode in rollout.episodes])
                collected = time.perf_counter()
                # 2. Score the action chunks by the kernels of the update where they are not those of the rollout.
                changes = players.rescore(rows)
                scored = time.perf_counter()
                # 3. Compute advantages and returns of every action chunk: by GAE from rewards and values (PPO), or
                #    relative to the returns of the group (GRPO). They are normalised over the chunks of all processes.
                buffer = players.buffer
                experience = make_experience(own_episodes, rows, buffer.log_prob, buffer.value, rl, team)
                played = experience.episodes
                values |= rollout_metrics(played, experience)
                gathered = time.perf_counter()
                # 4. Update policy and value head: `rl.epochs` passes over the chunks in random minibatches.
                depth, factor = watch.depth, watch.lr_factor
                updating = update(rl, optimisers, experience, iteration, players, team, depth=depth, lr_factor=factor)
                values |= yield from shown.updating(updating)
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
                values |= metrics_of_parts(parts, experience)
                # 5. If due, evaluate on the held-out seeds without exploration noise.
                if rl.eval_interval and (iteration == rl.iterations or iteration % rl.eval_interval == 0):
                    results = _evaluate(players, rl, team)
                    values |= evaluation_metrics(results)
                    values["time/evaluation_s"] = time.perf_counter() - updated
            except TrainingDiverged as error:
                if not rl.guard:
                    raise
                diverged = str(error)
            # 6. Decide: the training goes on, goes back to an earlier checkpoint, or ends.
            seconds = team.gather(time.perf_counter() - began)[0]
            seen = watch.see(observed(iteration, played, values, results, seconds), diverged)
            yield _logged(metrics, Metrics(iteration, values | watch.metrics()), team)
            yield from watch.record()
            if seen.back_to is not None:
                optimisers = states.go_back(own_job, policy, seen.back_to)
            # 7. If due, save a checkpoint and the optimisers' state. All processes have the same.
            if team.first and seen.saved:
                yield from save(job, states, policy, optimisers, iteration, watch.needed)
            if seen.saved:
                kept = watch.kept()  # in every process: all decide the same
                if team.first:
                    yield from retention.keep(kept)
            yield shown.finished(watch.note())
            if seen.ended:
                break


def _finite_in_all(work: Generator[Event, None, T], team: Team) -> Generator[Event, None, T]:
    """What `work` returns. If it diverges in one process, TrainingDiverged is raised in all. Collective call."""
    diverged = ""
    try:
        result = yield from work
    except TrainingDiverged as error:
        diverged = str(error)
    for each in team.gather(diverged):
        if each:
            raise TrainingDiverged(each)
    return result


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


def _evaluate(players: Players, rl: RlConfig, team: Team) -> list[Result]:
    """Play the held-out seeds, each process its share of them; results of all by seed. Collective call of the team."""
    own = players.evaluate(evaluation_seeds(rl)[team.rank :: team.size])
    return sorted(result for part in team.gather(own) for result in part)


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
        "time/policy_s": sum(rollout.policy_seconds for rollout in rollouts) / len(rollouts),
        "time/env_wait_s": sum(rollout.wait_seconds for rollout in rollouts) / len(rollouts),
        "time/gpu_wait_share": sum(rollout.wait_seconds for rollout in rollouts) / busy,
    }


def _logged(log: MetricsLog, entry: Metrics, team: Team) -> Metrics:
    if team.first:
        log.append(entry)
    return entry
