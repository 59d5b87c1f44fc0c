"""What every engine's evaluation has in common: settings, mismatches, durable rows, resuming, stopping when decided.

Episode rows are durable (``episodes.jsonl``) before they are announced; rows that an interrupted evaluation left are
announced again and not repeated. A kill costs at most the episodes that were under way, one per slot. Playing the
episodes is a `Player`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rlinf_isaac.checkpoint import facts
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.trained_with import mismatches
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.fan_out import fan_out
from rlinf_isaac.ground import lines
from rlinf_isaac.ground.atomic import locked, write_file
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import EngineFailed, InvalidJob
from rlinf_isaac.ground.events import (
    EpisodeDone,
    EpisodeRow,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    Metrics,
    MismatchAllowed,
    Progress,
    VideoSaved,
)
from rlinf_isaac.pi0.tokenizer import load_tokenizer
from rlinf_isaac.stats.sequential import StopRule, separate


class Player(Protocol):
    """A simulator that is running, and plays episodes of any checkpoint.

    Attributes:
        identity: of the environment as built (`EnvIdentity` as a dict).
        slots: environments that step side by side. Seed k of a job plays in slot ``k % slots``.
        settings: what else this player's rows depend on.
    """

    identity: Mapping[str, Any]
    slots: int
    settings: Mapping[str, Any]

    def play(
        self, bundle: Bundle, seeds: Sequence[int], finished: Collection[int], films: Mapping[int, Path]
    ) -> Iterator[EpisodeRow | Event]:
        """One row per seed that is not `finished`, as it ends (`video` is set by the caller); events pass through.

        Args:
            bundle: the checkpoint.
            seeds: all of the job's, whose order fixes the slots.
            finished: seeds that are not played.
            films: seed -> mp4 file that must be there, verified, when the episode's row is given.
        """
        ...


@dataclass(frozen=True)
class _Share:
    """One checkpoint's part of an evaluation."""

    bundle: Bundle
    directory: Path
    begin: tuple[Event, ...]


def evaluate(job: EvaluationJob, players: Sequence[Player], pool: Executor | None = None) -> Iterator[Event]:
    """Evaluate every bundle of the job on the same seeds.

    Args:
        job: what to evaluate.
        players: the one that plays everything; or several, that share the checkpoints out and do not change the rows.
        pool: with a thread for each of several players.

    Raises:
        InvalidJob: the job is not what the weights were trained with (unless ``job.allow_mismatch``).
        EngineFailed: players build different environments.
    """
    config, player = job.config, players[0]
    if any(dict(each.identity) != dict(player.identity) or each.slots != player.slots for each in players):
        raise EngineFailed("the environments of the lanes differ: are the nodes installed alike?")
    problems = {
        bundle.digest: mismatches(bundle, config, norm_stats=job.norm_stats, environment=player.identity)
        for bundle in job.bundles
    }
    if any(problems.values()) and not job.allow_mismatch:
        raise InvalidJob([problem for each in problems.values() for problem in each])
    settings = evaluation_settings(job, dict(player.identity), player.slots) | dict(player.settings)
    root = job.output / json_digest(settings)[:12]
    root.mkdir(parents=True, exist_ok=True)
    write_file(root / "settings.json", json.dumps(settings, indent=2))
    announced = settings | ({"stop_rule": asdict(job.stop_rule)} if job.stop_rule else {})
    shares = [
        _Share(
            bundle,
            root / f"{bundle.step}-{bundle.digest[:8]}",
            (
                EvaluationStarted(
                    bundle.step, bundle.path, bundle.digest, announced, facts.assumed(bundle), facts.unsaid(bundle)
                ),
                *(MismatchAllowed(bundle.step, bundle.digest, problem) for problem in problems[bundle.digest]),
            ),
        )
        for bundle in job.bundles
    ]
    seeds = range(config.eval.first_seed, config.eval.first_seed + config.eval.episodes)
    begun: set[str] = set()

    def play(player: Player, share: _Share, batch: range = seeds) -> Iterator[Event]:
        if share.bundle.digest not in begun:
            begun.add(share.bundle.digest)
            yield from share.begin
        yield from _evaluate_bundle(share.bundle, job, player, share.directory, seeds, batch)

    def play_whole(player: Player, share: _Share) -> Iterator[Event]:
        yield from play(player, share)
        yield EvaluationFinished(share.bundle.step, share.bundle.digest, share.directory)

    def play_all(part: Callable[[Player, _Share], Iterator[Event]]) -> Iterator[Event]:
        if pool is not None:
            yield from fan_out(pool, [partial(part, each) for each in players], shares)
            return
        for share in shares:
            yield from part(player, share)

    if job.stop_rule is None:
        yield from play_all(play_whole)
        return
    yield from _until_decided(job, job.stop_rule, seeds, lambda batch: play_all(partial(play, batch=batch)))
    for share in shares:
        yield EvaluationFinished(share.bundle.step, share.bundle.digest, share.directory)


def evaluation_settings(job: EvaluationJob, environment: dict[str, Any], slots: int) -> dict[str, Any]:
    """Everything besides checkpoint and seed that an episode row depends on. More episodes reuse the rows there are."""
    config = job.config
    return {
        "environment": environment,
        "num_envs": slots,
        "first_seed": config.eval.first_seed,
        "policy_seed": config.eval.policy_seed,
        "norm_stats": job.norm_stats.digest if job.norm_stats else "of the checkpoint",
        "tokenizer": load_tokenizer(config.policy, config.model).fingerprint,
        "state_layout": config.policy.state_layout,
        "action_chunk": config.policy.action_chunk,
        "denoise_steps": config.policy.denoise_steps,
        "device": config.compute.device,
        "threads": config.compute.threads,
        # Rows of earlier releases do not know it; what they do not say is the default.
        **({} if config.compute.dtype == "float32" else {"dtype": config.compute.dtype}),
        # What a person says of the weights decides how they are run.
        **({"assumed": dict(said)} if (said := facts.assumed(job.bundles[0])) else {}),
    }


def _until_decided(
    job: EvaluationJob, rule: StopRule, seeds: range, play: Callable[[range], Iterator[Event]]
) -> Iterator[Event]:
    """Batch after batch of seeds, every bundle on each; what is known after a batch goes into metrics."""
    successes: dict[str, dict[int, bool]] = {bundle.digest: {} for bundle in job.bundles}
    for batch in rule.rounds(seeds):
        # All bundles play the same seeds before anyone looks at the results.
        for event in play(batch):
            if isinstance(event, EpisodeDone):
                successes[event.row.checkpoint][event.row.seed] = event.row.success
            yield event
        # The evidence that one of them is better than all others, which may be looked at as often as one likes.
        found = separate(list(successes.values()), rule.alpha)
        best = job.bundles[found.best]
        done = len(successes[best.digest])
        yield Metrics(done, {"until_decided/e_value": found.e_value, "until_decided/best": best.step})
        if found.decided:
            return


def _evaluate_bundle(
    bundle: Bundle, job: EvaluationJob, player: Player, directory: Path, seeds: range, batch: range
) -> Iterator[Event]:
    """Announce the rows that are on disk, play the other episodes of `batch`."""
    config = job.config
    first_seed = config.eval.first_seed
    rows_file = directory / "episodes.jsonl"
    (directory / "videos").mkdir(parents=True, exist_ok=True)
    with locked(directory):
        # What an earlier, interrupted evaluation finished counts, unless it should have been filmed and was not.
        rows = {row.seed: row for row in map(_parse_row, lines.read(rows_file)) if row.seed in batch}
        wanted = {seed for seed in batch if seed < first_seed + config.eval.videos}
        filmed = {seed for seed, row in rows.items() if row.video and (directory / row.video).is_file()}
        finished = {seed for seed in rows if seed in filmed or seed not in wanted}
        # These rows are announced again: whoever records them knows which ones it has.
        for seed in sorted(finished):
            yield from _announce(rows[seed], directory)
        label = f"eval {bundle.step}"
        before = batch.start - seeds.start
        yield Progress(label, before + len(finished), len(seeds))
        if len(finished) < len(batch):
            films = {seed: f"videos/episode_{seed - first_seed:03d}.mp4" for seed in sorted(wanted - finished)}
            successes, count = sum(rows[seed].success for seed in finished), len(finished)
            # All seeds, for a seed's slot must not depend on the batch.
            for row in player.play(
                bundle,
                seeds,
                finished | (set(seeds) - set(batch)),
                {seed: directory / name for seed, name in films.items()},
            ):
                if not isinstance(row, EpisodeRow):
                    yield row
                    continue
                # A row is on disk before it is announced, so that a kill can only cost what nobody has heard of.
                row = replace(row, video=films.get(row.seed))
                lines.append(rows_file, json.dumps(row.as_dict()))
                yield from _announce(row, directory)
                successes, count = successes + row.success, count + 1
                yield Progress(label, before + count, len(seeds), f"{successes} of {count} solved")


def _announce(row: EpisodeRow, directory: Path) -> Iterator[Event]:
    yield EpisodeDone(row)
    if row.video:
        yield VideoSaved(row.checkpoint_step, row.seed, directory / row.video, row.length + 1)


def _parse_row(line: str) -> EpisodeRow:
    return EpisodeRow.from_dict(json.loads(line))
