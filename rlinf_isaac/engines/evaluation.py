"""The part of an evaluation that all engines share: settings, mismatches, durable rows, resuming, and stop rules.

Episode rows are written to disk (``episodes.jsonl``) before their events are yielded. After an interruption, rows on
disk are announced again and their episodes are not repeated; a kill loses at most the running episodes, one per slot.
The episodes themselves are run by a `Player`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint import facts
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.trained_with import mismatches
from rlinf_isaac.config.task import task_of
from rlinf_isaac.engines.base import EvaluationJob, Player
from rlinf_isaac.engines.fan_out import fan_out
from rlinf_isaac.engines.filming import Filming, Films, announce, chooses, label_of
from rlinf_isaac.ground import lines
from rlinf_isaac.ground.atomic import locked, write_file
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import EngineFailed, InvalidJob, Problem
from rlinf_isaac.ground.events import (
    EpisodeDone,
    EpisodeKey,
    EpisodeRow,
    EvaluationFilmed,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    Metrics,
    MismatchAllowed,
    Progress,
)
from rlinf_isaac.pi0.tokenizer import load_tokenizer
from rlinf_isaac.stats.sequential import StopRule, separate


@dataclass(frozen=True)
class _Share:
    """One checkpoint of an evaluation: its directory, and the events that announce it."""

    bundle: Bundle
    directory: Path
    begin: tuple[Event, ...]


def evaluate(job: EvaluationJob, players: Sequence[Player], pool: Executor | None = None) -> Iterator[Event]:
    """Evaluate every bundle of the job on the same seeds.

    Args:
        job: the job.
        players: one player for all checkpoints; or several players that share the checkpoints. The rows do not depend
            on their number.
        pool: executor with one thread per player; None for a single player.

    Raises:
        InvalidJob: the job differs from what the weights were trained with (unless ``job.allow_mismatch``).
        EngineFailed: the players have different environments.
    """
    config, player = job.config, players[0]
    if any(dict(each.identity) != dict(player.identity) or each.slots != player.slots for each in players):
        raise EngineFailed("the environments of the nodes differ: do all nodes have the same packages and assets?")
    # Compare each checkpoint's training with this job and with the environment as it was built.
    problems = {
        bundle.digest: mismatches(bundle, config, norm_stats=job.norm_stats, environment=player.identity)
        for bundle in job.bundles
    }
    if any(problems.values()) and not job.allow_mismatch:
        raise InvalidJob([problem for each in problems.values() for problem in each])
    settings, root = settle(job, player)
    shares = [
        _Share(bundle, directory_of(root, bundle), begin(bundle, announced(job, settings), problems[bundle.digest]))
        for bundle in job.bundles
    ]
    seeds = range(config.eval.first_seed, config.eval.first_seed + config.eval.episodes)
    begun: set[str] = set()  # digests of the bundles that have been announced

    def play(player: Player, share: _Share, batch: range = seeds) -> Iterator[Event]:
        if share.bundle.digest not in begun:
            begun.add(share.bundle.digest)
            yield from share.begin
        yield from evaluate_bundle(share.bundle, job, player, share.directory, seeds, batch)

    def play_whole(player: Player, share: _Share) -> Iterator[Event]:
        yield from play(player, share)
        yield EvaluationFinished(share.bundle.step, share.bundle.digest, share.directory)

    def play_all(part: Callable[[Player, _Share], Iterator[Event]]) -> Iterator[Event]:
        if pool is not None:
            yield from fan_out(pool, [partial(part, each) for each in players], shares)
            return
        for share in shares:
            yield from part(player, share)

    def play_until_decided(rule: StopRule) -> Iterator[Event]:
        yield from until_decided(job, rule, seeds, lambda batch: play_all(partial(play, batch=batch)))
        for share in shares:
            yield EvaluationFinished(share.bundle.step, share.bundle.digest, share.directory)

    # Without a stop rule every checkpoint plays all seeds. With one, all checkpoints play batch after batch.
    filming = Filming(job, player.identity)
    yield from filming.watch(play_all(play_whole) if job.stop_rule is None else play_until_decided(job.stop_rule))

    # The rows of all checkpoints decide which seeds are filmed: these are played again.
    def film(player: Player, share: _Share) -> Iterator[Event]:
        yield from filming.film(share.bundle, player, share.directory)
        yield EvaluationFilmed(share.bundle.step, share.bundle.digest)

    if filming.chosen():
        yield from play_all(film)


def settle(job: EvaluationJob, player: Player) -> tuple[dict[str, Any], Path]:
    """The settings of an evaluation of one task, and the directory for its rows, which are reused only under equal
    settings: their digest names it."""
    settings = evaluation_settings(job, dict(player.identity), player.slots) | dict(player.settings)
    root = job.output / json_digest(settings)[:12]
    root.mkdir(parents=True, exist_ok=True)
    write_file(root / "settings.json", json.dumps(settings, indent=2))
    return settings, root


def directory_of(root: Path, bundle: Bundle) -> Path:
    """Where the rows and the videos of a checkpoint lie."""
    return root / f"{bundle.step}-{bundle.digest[:8]}"


def announced(job: EvaluationJob, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as `EvaluationStarted` has them."""
    values = dict(settings) | ({"stop_rule": asdict(job.stop_rule)} if job.stop_rule else {})
    return values | ({"failures": list(task_of(job.config).failures)} if job.config.task else {})


def begin(bundle: Bundle, settings: Mapping[str, Any], problems: Sequence[Problem]) -> tuple[Event, ...]:
    """The events that announce a checkpoint, with the mismatches that are allowed."""
    started = EvaluationStarted(
        bundle.step, bundle.path, bundle.digest, settings, facts.assumed(bundle), facts.unsaid(bundle)
    )
    return started, *(MismatchAllowed(bundle.step, bundle.digest, problem) for problem in problems)


def evaluation_settings(job: EvaluationJob, environment: dict[str, Any], slots: int) -> dict[str, Any]:
    """Everything that an episode row depends on, besides the checkpoint and the seed. The number of episodes is not
    part of it, so an evaluation with more episodes reuses existing rows."""
    config = job.config
    return {
        "environment": environment,
        "num_envs": slots,
        "first_seed": config.eval.first_seed,
        "policy_seed": config.eval.policy_seed,
        "norm_stats": job.norm_stats.digest if job.norm_stats else "of the checkpoint",
        "tokenizer": load_tokenizer(config.policy, config.model).fingerprint,
        **({"task": task_of(config).digest} if config.task else {"state_layout": config.policy.state_layout}),
        "action_chunk": config.policy.action_chunk,
        "denoise_steps": config.policy.denoise_steps,
        "device": config.compute.device,
        "threads": config.compute.threads,
        # Left out if it is the default, so that rows of earlier releases, which have no dtype, are reused.
        **({} if config.compute.dtype == "float32" else {"dtype": config.compute.dtype}),
        **({"vary": job.varied.as_dict()} if job.varied else {}),
        # Assumptions about the weights determine how they are run.
        **({"assumed": dict(said)} if (said := facts.assumed(job.bundles[0])) else {}),
    }


def until_decided(
    job: EvaluationJob, rule: StopRule, seeds: range, play: Callable[[range], Iterator[Event]]
) -> Iterator[Event]:
    """Evaluate all bundles on one batch of seeds after the other, in every task, until one is shown to be the best.

    Yields metrics with the evidence after every batch.
    """
    successes: dict[str, dict[EpisodeKey, bool]] = {bundle.digest: {} for bundle in job.bundles}
    for batch in rule.rounds(seeds):
        # Every bundle plays the same seeds before the results are tested.
        for event in play(batch):
            if isinstance(event, EpisodeDone):
                successes[event.row.checkpoint][event.row.key] = event.row.success
            yield event
        # The e-value for "one of them is better than all others". It remains valid however often it is tested.
        found = separate(list(successes.values()), rule.alpha)
        best = job.bundles[found.best]
        done = len(successes[best.digest])
        yield Metrics(done, {"until_decided/e_value": found.e_value, "until_decided/best": best.step})
        if found.decided:
            return


def evaluate_bundle(
    bundle: Bundle, job: EvaluationJob, player: Player, directory: Path, seeds: range, batch: range, task: str = ""
) -> Iterator[Event]:
    """Announce the rows that are on disk, then play the other episodes of `batch`.

    Args:
        bundle: the checkpoint.
        job: the evaluation, of one task.
        player: plays the episodes.
        directory: of the rows and videos.
        seeds: all seeds of the job.
        batch: those that are played now.
        task: for `EpisodeRow.task`; empty if there is only one.
    """
    config = job.config
    first_seed = config.eval.first_seed
    rows_file = directory / "episodes.jsonl"
    (directory / "videos").mkdir(parents=True, exist_ok=True)
    with locked(directory):
        # What an earlier, interrupted evaluation finished counts, unless it should have been filmed and was not.
        rows = {row.seed: row for row in read_rows(directory) if row.seed in batch}
        later = chooses(job, player.identity)
        wanted = {seed for seed in batch if seed < first_seed + config.eval.videos and not later}
        films = Films(directory, first_seed)
        rows |= {seed: films.on(rows[seed]) for seed in wanted & rows.keys()}
        finished = {seed for seed, row in rows.items() if films.has(row) or seed not in wanted}
        # Announce these rows again. A recorder identifies a row by checkpoint and seed, so it counts only once.
        for seed in sorted(finished):
            yield from announce(rows[seed] if seed in wanted else replace(rows[seed], video=None), directory)
        label = label_of("eval", bundle, job, task)
        before = batch.start - seeds.start
        kept = f"{len(finished)} were there already" if finished else ""
        yield Progress(label, before + len(finished), len(seeds), kept, "ep")
        if len(finished) < len(batch):
            names = {seed: films.name(seed) for seed in sorted(wanted - finished)}
            successes, count = sum(rows[seed].success for seed in finished), len(finished)
            # The player gets all seeds, so that the slot of a seed does not depend on the batch.
            for row in player.play(
                bundle,
                seeds,
                finished | (set(seeds) - set(batch)),
                {seed: directory / name for seed, name in names.items()},
            ):
                if not isinstance(row, EpisodeRow):
                    yield row
                    continue
                # Write the row to disk before announcing it: a kill loses only episodes that were not announced.
                row = replace(row, video=names.get(row.seed), task=task)
                lines.append(rows_file, json.dumps(row.as_dict()))
                yield from announce(row, directory)
                successes, count = successes + row.success, count + 1
                yield Progress(label, before + count, len(seeds), f"{successes} of {count} solved", "ep")


def read_rows(directory: Path) -> list[EpisodeRow]:
    """The rows on disk of a checkpoint, in the order in which they were written."""
    return [EpisodeRow.from_dict(json.loads(line)) for line in lines.read(directory / "episodes.jsonl")]
