"""Films the episodes of an evaluation that are worth looking at.

Which they are is known when all checkpoints have played: those on which checkpoints differ, and failures. An episode is
a function of its seed and its slot, so the chosen ones are played again, in front of a camera. Their rows stay as they
are: a film that ends otherwise says so. At most ``eval.videos`` episodes of a checkpoint are played twice.

Films lie beside the rows, in ``videos/``; ``films.jsonl`` has a line for each, written when the film is complete. So a
kill loses at most the films that are being made.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.engines.base import EvaluationJob, Player
from rlinf_isaac.engines.rollout.film import trace_of
from rlinf_isaac.ground import lines
from rlinf_isaac.ground.atomic import locked
from rlinf_isaac.ground.events import EpisodeDone, EpisodeRow, Event, Progress, VideoSaved

logger = logging.getLogger("rlinf_isaac")


def label_of(what: str, bundle: Bundle, job: EvaluationJob, task: str = "") -> str:
    """What a checkpoint's episodes are called where their progress is shown."""
    return " ".join(filter(None, (what, bundle.name, task, job.varied.axis if job.varied else "")))


def chooses(job: EvaluationJob, environment: Mapping[str, Any]) -> bool:
    """Whether episodes are chosen and played again for a film.

    Otherwise the first ones are filmed while they are played: all are, or `environment`, an `EnvIdentity` as a dict,
    takes no seeds, so that no episode can be played again.
    """
    config = job.config.eval
    return 0 < config.videos < config.episodes and environment.get("seeded", True)


def choose(played: Sequence[Mapping[int, EpisodeRow]], count: int) -> list[int]:
    """The seeds to be filmed, for all checkpoints the same: those on which checkpoints disagree come first, then those
    that all have failed, then those that all have solved.

    Of each of the three, every way in which the episodes of a seed have ended has its turn before any has a second one.

    Args:
        played: seed -> row, of each checkpoint. Seeds that not all have are not chosen.
        count: how many seeds.
    """
    seeds = set.intersection(*(set(rows) for rows in played)) if played else set()
    seen: Counter[tuple[str, ...]] = Counter()
    ranked = []
    for seed in sorted(seeds):
        rows = [each[seed] for each in played]
        solved, ends = sum(row.success for row in rows), tuple(row.outcome for row in rows)
        ranked.append((0 if 0 < solved < len(rows) else 1 if not solved else 2, seen[ends], seed))
        seen[ends] += 1
    return sorted(seed for *_, seed in sorted(ranked)[:count])


class Films:
    """The films that a directory of rows has, by what ``films.jsonl`` says."""

    def __init__(self, directory: Path, first_seed: int) -> None:
        self._directory, self._first_seed = directory, first_seed
        self.file = directory / "films.jsonl"
        written = map(json.loads, lines.read(self.file)) if self.file.is_file() else ()
        self._of = {line["seed"]: line for line in written}

    def name(self, seed: int) -> str:
        """The name of a film in the directory: the same for all checkpoints."""
        return f"videos/episode_{seed - self._first_seed:03d}.mp4"

    def on(self, row: EpisodeRow) -> EpisodeRow:
        """The row with its film, if there is one."""
        line = self._of.get(row.seed)
        if line is None:
            return row
        film = line["outcome"], line["length"]
        outcome, length = ("", 0) if film == (row.outcome, row.length) else film
        return replace(row, video=line["video"], filmed_outcome=outcome, filmed_length=length)

    def has(self, row: EpisodeRow) -> bool:
        """Whether the row has a film."""
        return bool(row.video) and (self._directory / str(row.video)).is_file()

    def add(self, row: EpisodeRow, again: EpisodeRow) -> EpisodeRow:
        """Note the film of an episode that was played `again`; returns its row with the film."""
        if (again.outcome, again.length) != (row.outcome, row.length):
            logger.warning(
                "seed %d of step %d ended otherwise when it was played again for its film (%s after %d steps, before:"
                " %s after %d); the result stays, the film says so",
                *(row.seed, row.checkpoint_step, again.outcome, again.length, row.outcome, row.length),
            )
        name = self.name(row.seed)
        line = {"seed": row.seed, "video": name, "outcome": again.outcome, "length": again.length}
        lines.append(self.file, json.dumps(line))
        self._of[row.seed] = line
        return self.on(row)


def announce(row: EpisodeRow, directory: Path) -> Iterator[Event]:
    """The events of a row, and of its film."""
    yield EpisodeDone(row)
    if row.video:
        path = directory / row.video
        trace = trace_of(path) if trace_of(path).is_file() else None
        yield VideoSaved(row.checkpoint_step, row.seed, path, row.film_length + 1, row.task, trace)


class Filming:
    """The films of one task's evaluation: watches which rows are announced, then chooses and plays.

    Args:
        job: the evaluation.
        environment: `EnvIdentity` as a dict.
        task: whose rows count; empty if there is only one.
    """

    def __init__(self, job: EvaluationJob, environment: Mapping[str, Any], task: str = "") -> None:
        self._job, self._task, self._chooses = job, task, chooses(job, environment)
        self._played: dict[str, dict[int, EpisodeRow]] = {}

    def watch(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events, of which the rows are remembered."""
        for event in events:
            if isinstance(event, EpisodeDone) and event.row.task == self._task:
                self._played.setdefault(event.row.checkpoint, {})[event.row.seed] = event.row
            yield event

    def chosen(self) -> list[int]:
        """The seeds that are filmed after all have been played; empty if none are."""
        return choose(list(self._played.values()), self._job.config.eval.videos) if self._chooses else []

    def film(self, bundle: Bundle, player: Player, directory: Path) -> Iterator[Event]:
        """Film the chosen episodes of a checkpoint; films that are there are announced again.

        Args:
            bundle: the checkpoint.
            player: the one that has played, or one with the same environment.
            directory: of the rows and videos.
        """
        config, chosen = self._job.config.eval, self.chosen()
        seeds = range(config.first_seed, config.first_seed + config.episodes)
        with locked(directory):
            films = Films(directory, config.first_seed)
            rows = {seed: films.on(self._played[bundle.digest][seed]) for seed in chosen}
            missing = {seed for seed, row in rows.items() if not films.has(row)}
            for seed in sorted(rows.keys() - missing):
                yield from announce(rows[seed], directory)
            if not missing:
                return
            label, done = label_of("film", bundle, self._job, self._task), len(rows) - len(missing)
            yield Progress(label, done, len(rows))
            paths = {seed: directory / films.name(seed) for seed in sorted(missing)}
            # The player gets all seeds, so that each is played in the slot in which it was played before.
            for again in player.play(bundle, seeds, set(seeds) - missing, paths, again=True):
                if not isinstance(again, EpisodeRow):
                    yield again
                    continue
                yield from announce(films.add(rows[again.seed], again), directory)
                done += 1
                yield Progress(label, done, len(rows))
