from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support import SHORT_EVALUATION, small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.filming import Filming, choose, chooses
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.ground import lines
from rlinf_isaac.ground.events import EpisodeDone, EpisodeRow, VideoSaved
from rlinf_isaac.media.video import verify_video

ENDS = {"s": "success", "d": "drop", "t": "timeout"}


def played(outcomes: str, first_seed: int = 5000) -> dict[int, EpisodeRow]:
    """Seed -> row of a checkpoint whose episodes have ended so."""
    return {
        seed: EpisodeRow(1, "a" * 64, seed, 0, end == "s", ENDS[end], 10, 0.0, 0)
        for seed, end in enumerate(outcomes, start=first_seed)
    }


@pytest.mark.parametrize(
    ("outcomes", "chosen"),
    [
        (["sssstsds"], [0, 4, 6]),  # one checkpoint: its failures, then the first success
        (["tttdss"], [0, 1, 3]),  # another failure has its turn before a third of the same
        (["sstst", "sttss"], [1, 2, 4]),  # they disagree on 1 and 4; then 2, which both have failed
        (["sstst", "ssttt", "tttst"], [0, 1, 3]),  # they disagree on 0, 1 and 3; all have failed on 2
        (["ss", "ss"], [0, 1]),
        ([], []),
    ],
)
def test_disagreements_and_failures_are_chosen(outcomes, chosen):
    assert [seed - 5000 for seed in choose([played(each) for each in outcomes], 3)] == chosen


def job(checkpoints, output, *overrides, steps=(2, 6)):
    config = small_config([SHORT_EVALUATION, "eval.episodes=5", "eval.num_envs=2", "eval.videos=2", *overrides])
    return EvaluationJob(config, tuple(read_bundle(checkpoints / str(step)) for step in steps), output)


def test_a_film_shows_the_episode_again_with_what_the_policy_predicted(small_checkpoints, tmp_path):
    plan = job(small_checkpoints, tmp_path, steps=(6,))
    events = list(LocalEngine().evaluate(plan))
    rows = {event.row.seed: event.row for event in events if isinstance(event, EpisodeDone)}
    films = [event for event in events if isinstance(event, VideoSaved)]
    assert [film.seed for film in films] == [5000, 5001]  # all have failed in one way
    for film in films:
        row, trace = rows[film.seed], json.loads(film.trace.read_text())
        assert row.video == f"videos/{film.path.name}"
        assert not row.filmed_outcome
        verify_video(film.path, row.length + 1)
        policy, horizon = plan.config.policy, plan.config.model.action_horizon
        assert trace["at"] == [*range(0, row.length, policy.action_chunk), row.length]
        assert len(trace["states"]) == len(trace["at"]) == len(trace["predicted"]) + 1
        assert all(len(state) == len(trace["state"]) for state in trace["states"])
        assert {len(chunk) for chunk in trace["predicted"]} == {horizon}
        begins = [action for chunk in trace["predicted"] for action in chunk[: policy.action_chunk]]
        assert begins == trace["executed"], "what is executed is the beginning of what was predicted"
        assert len(trace["executed"]) == row.length
        assert len(trace["executed"][0]) == len(trace["action"])


def test_after_a_kill_films_that_are_there_are_not_made_again(small_checkpoints, tmp_path):
    plan = job(small_checkpoints, tmp_path)
    for event in LocalEngine().evaluate(plan):
        if isinstance(event, VideoSaved):
            break
    (first,) = tmp_path.rglob("*.mp4")
    before = first.stat().st_mtime_ns
    films = [event for event in LocalEngine().evaluate(plan) if isinstance(event, VideoSaved)]
    assert [(film.checkpoint_step, film.seed) for film in films] == [(2, 5000), (2, 5001), (6, 5000), (6, 5001)]
    assert len({film.path for film in films}) == 4
    assert len({film.path.name for film in films}) == 2
    assert first.stat().st_mtime_ns == before
    assert [len(lines.read(file)) for file in tmp_path.rglob("episodes.jsonl")] == [5, 5]
    assert [len(lines.read(file)) for file in tmp_path.rglob("films.jsonl")] == [2, 2]


class Forgetful:
    """Plays any episode as a time-out after 7 steps: a simulator that does not repeat itself."""

    def play(self, bundle, seeds, finished, films, again=False):
        for seed in sorted(set(seeds) - set(finished)):
            films[seed].write_bytes(b"film")
            yield replace(played("t", seed)[seed], length=7)


def test_a_film_that_ends_otherwise_says_so_and_the_result_stays(small_checkpoints, tmp_path, caplog):
    plan = job(small_checkpoints, tmp_path)
    (tmp_path / "videos").mkdir()
    bundle = plan.bundles[0]
    rows = [replace(row, checkpoint=bundle.digest) for row in played("sssts").values()]
    for attempt in range(2):
        filming = Filming(plan, {})
        list(filming.watch(map(EpisodeDone, rows)))
        events = list(filming.film(bundle, Forgetful(), tmp_path))
        filmed = {event.row.seed - 5000: event.row for event in events if isinstance(event, EpisodeDone)}
        assert [(row.outcome, row.filmed_outcome, row.filmed_length) for row in filmed.values()] == [
            ("success", "timeout", 7),
            ("timeout", "timeout", 7),
        ]
        assert [event.frames for event in events if isinstance(event, VideoSaved)] == [8, 8]
        assert len(caplog.records) == 2, attempt


def test_without_seeds_or_without_a_choice_nothing_is_played_twice(small_checkpoints, tmp_path):
    plan = job(small_checkpoints, tmp_path)
    assert chooses(plan, {})
    assert not chooses(plan, {"seeded": False})
    assert not chooses(job(small_checkpoints, tmp_path, "eval.videos=5"), {})
    assert not chooses(job(small_checkpoints, tmp_path, "eval.videos=0"), {})
