"""What every engine's evaluation has in common: settings, mismatches, durable rows, resuming, stopping when decided.

Episode rows are durable (``episodes.jsonl``) before they are announced; rows that an interrupted evaluation left are
announced again and not repeated. A kill costs at most the episodes that were under way, one per slot. Playing the
episodes is a `Player`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from rlinf_isaac.atomic import append_line, locked, read_lines, write_file
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.trained_with import mismatches
from rlinf_isaac.digest import json_digest
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.errors import InvalidJob
from rlinf_isaac.events import (
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
from rlinf_isaac.sequential import StopRule, separate


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


def evaluate(job: EvaluationJob, player: Player) -> Iterator[Event]:
    """Evaluate every bundle of the job on the same seeds.

    Raises:
        InvalidJob: the job is not what the weights were trained with (unless ``job.allow_mismatch``).
    """
    config = job.config
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
    directories = [root / f"{bundle.step}-{bundle.digest[:8]}" for bundle in job.bundles]
    begin: dict[str, list[Event]] = {
        bundle.digest: [
            EvaluationStarted(bundle.step, bundle.path, bundle.digest, announced),
            *(MismatchAllowed(bundle.step, bundle.digest, problem) for problem in problems[bundle.digest]),
        ]
        for bundle in job.bundles
    }
    seeds = range(config.eval.first_seed, config.eval.first_seed + config.eval.episodes)
    if job.stop_rule is None:
        for bundle, directory in zip(job.bundles, directories, strict=True):
            yield from begin[bundle.digest]
            yield from _evaluate_bundle(bundle, job, player, directory, seeds)
            yield EvaluationFinished(bundle.step, bundle.digest, directory)
        return
    for events in begin.values():
        yield from events
    yield from _until_decided(job, job.stop_rule, player, directories, seeds)
    for bundle, directory in zip(job.bundles, directories, strict=True):
        yield EvaluationFinished(bundle.step, bundle.digest, directory)


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
    }


def _until_decided(
    job: EvaluationJob, rule: StopRule, player: Player, directories: Sequence[Path], seeds: range
) -> Iterator[Event]:
    """Batch after batch of seeds, every bundle on each; what is known after a batch goes into metrics."""
    successes: list[dict[int, bool]] = [{} for _ in job.bundles]
    for batch in rule.rounds(seeds):
        for bundle, directory, known in zip(job.bundles, directories, successes, strict=True):
            for event in _evaluate_bundle(bundle, job, player, directory, seeds, batch):
                if isinstance(event, EpisodeDone):
                    known[event.row.seed] = event.row.success
                yield event
        found = separate(successes, rule.alpha)
        best = job.bundles[found.best]
        yield Metrics(len(successes[0]), {"until_decided/e_value": found.e_value, "until_decided/best": best.step})
        if found.decided:
            return


def _evaluate_bundle(
    bundle: Bundle, job: EvaluationJob, player: Player, directory: Path, seeds: range, batch: range | None = None
) -> Iterator[Event]:
    """Announce the rows that are on disk, play the other episodes of `batch` (all seeds when None)."""
    batch = seeds if batch is None else batch
    config = job.config
    first_seed = config.eval.first_seed
    rows_file = directory / "episodes.jsonl"
    (directory / "videos").mkdir(parents=True, exist_ok=True)
    with locked(directory):
        rows = {row.seed: row for row in map(_parse_row, read_lines(rows_file)) if row.seed in batch}
        wanted = {seed for seed in batch if seed < first_seed + config.eval.videos}
        filmed = {seed for seed, row in rows.items() if row.video and (directory / row.video).is_file()}
        finished = {seed for seed in rows if seed in filmed or seed not in wanted}
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
                row = replace(row, video=films.get(row.seed))
                append_line(rows_file, json.dumps(row.as_dict()))
                yield from _announce(row, directory)
                successes, count = successes + row.success, count + 1
                yield Progress(label, before + count, len(seeds), f"{successes} of {count} solved")


def _announce(row: EpisodeRow, directory: Path) -> Iterator[Event]:
    yield EpisodeDone(row)
    if row.video:
        yield VideoSaved(row.checkpoint_step, row.seed, directory / row.video, row.length + 1)


def _parse_row(line: str) -> EpisodeRow:
    return EpisodeRow.from_dict(json.loads(line))
