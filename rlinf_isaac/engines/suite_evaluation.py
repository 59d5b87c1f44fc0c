"""Evaluates checkpoints of several tasks: each task in its own environment and with its own norm stats.

The rows of each task lie in a directory of their own, which the settings of that task name, as for a checkpoint of that
task alone. A checkpoint is announced once, with the settings of all tasks, and its rows say of which task they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.of_task import of_task
from rlinf_isaac.checkpoint.trained_with import mismatches
from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.engines.base import EvaluationJob, Player
from rlinf_isaac.engines.evaluation import (
    announced,
    begin,
    directory_of,
    evaluate_bundle,
    settle,
    until_decided,
)
from rlinf_isaac.engines.filming import Filming
from rlinf_isaac.envs.lanes import Lanes, make_lanes
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.events import EvaluationFilmed, EvaluationFinished, Event


@dataclass(frozen=True)
class _Part:
    """One task of the evaluation: its job, with the checkpoints as this task sees them, and its player."""

    name: str
    job: EvaluationJob
    player: Player
    settings: Mapping[str, Any]
    root: Path


def evaluate_suite(job: EvaluationJob, make_player: Callable[[EvaluationJob, Lanes], Player]) -> Iterator[Event]:
    """Evaluate every bundle of the job on the same seeds of every task that the job is about.

    The environments of all tasks stay open, so that each checkpoint can be finished before the next, and, with a stop
    rule, every batch of seeds is played in all tasks before it is decided.

    Args:
        job: the job; its bundles are checkpoints of a suite.
        make_player: makes the player of one task's job and environment.

    Raises:
        InvalidJob: the job of a task differs from what the weights were trained with (unless ``job.allow_mismatch``).
    """
    with ExitStack() as opened:
        parts = [_part(each, opened, make_player) for each in jobs_of(job)]
        shares = {bundle.digest: bundle for bundle in job.bundles}
        problems = {
            digest: [
                problem
                for part in parts
                for bundle in part.job.bundles
                if bundle.digest == digest
                for problem in mismatches(bundle, part.job.config, environment=part.player.identity)
            ]
            for digest in shares
        }
        if any(problems.values()) and not job.allow_mismatch:
            raise InvalidJob([problem for each in problems.values() for problem in each])
        settings = _settings(parts)
        seeds = range(job.config.eval.first_seed, job.config.eval.first_seed + job.config.eval.episodes)
        begun: set[str] = set()

        def play(bundle: Bundle, batch: range = seeds) -> Iterator[Event]:
            if bundle.digest not in begun:
                begun.add(bundle.digest)
                view = next(each for each in parts[0].job.bundles if each.digest == bundle.digest)
                yield from begin(view, settings, problems[bundle.digest])
            for part in parts:
                own = next(each for each in part.job.bundles if each.digest == bundle.digest)
                directory = directory_of(part.root, own)
                yield from evaluate_bundle(own, part.job, part.player, directory, seeds, batch, part.name)

        def play_all(batch: range) -> Iterator[Event]:
            for bundle in job.bundles:
                yield from play(bundle, batch)

        def play_everything() -> Iterator[Event]:
            if job.stop_rule is None:
                for bundle in job.bundles:
                    yield from play(bundle)
                    yield EvaluationFinished(bundle.step, bundle.digest, job.output)
                return
            yield from until_decided(job, job.stop_rule, seeds, play_all)
            for bundle in job.bundles:
                yield EvaluationFinished(bundle.step, bundle.digest, job.output)

        # Each task has its own films.
        filmings = {part.name: Filming(part.job, part.player.identity, part.name) for part in parts}
        events = play_everything()
        for filming in filmings.values():
            events = filming.watch(events)
        yield from events
        if not any(filming.chosen() for filming in filmings.values()):
            return
        for bundle in job.bundles:
            for part in parts:
                own = next(each for each in part.job.bundles if each.digest == bundle.digest)
                yield from filmings[part.name].film(own, part.player, directory_of(part.root, own))
            yield EvaluationFilmed(bundle.step, bundle.digest)


def jobs_of(job: EvaluationJob) -> Iterator[EvaluationJob]:
    """The evaluation of each task that a job is about, with the checkpoints as that task sees them."""
    for config in configs_of(job.config):
        yield replace(job, config=config, bundles=tuple(of_task(bundle, config.env.task) for bundle in job.bundles))


def _part(job: EvaluationJob, opened: ExitStack, make_player: Callable[[EvaluationJob, Lanes], Player]) -> _Part:
    config = job.config
    env = make_lanes(config, min(config.eval.num_envs, config.eval.episodes), job.env_python, job.varied)
    opened.callback(env.close)
    player = make_player(job, env)
    settings, root = settle(job, player)
    return _Part(config.env.task, job, player, announced(job, settings), root)


def _settings(parts: list[_Part]) -> dict[str, Any]:
    """What all tasks have in common, and ``tasks``: the settings of each. ``failures`` are those of any task."""
    first = parts[0].settings
    common = {key: value for key, value in first.items() if all(part.settings.get(key) == value for part in parts)}
    failures = dict.fromkeys(name for part in parts for name in part.settings.get("failures", ("drop",)))
    return common | {"failures": list(failures), "tasks": {part.name: dict(part.settings) for part in parts}}
