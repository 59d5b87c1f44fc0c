"""Decisions after iterations that are told to the watch; whole trainings with it are in test_train.py."""

from __future__ import annotations

import pytest
from support import SMALL_RL, small_config

from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl.course import Iteration
from rlinf_isaac.engines.local.rl.watch import Watch
from rlinf_isaac.ground.errors import TrainingDiverged
from rlinf_isaac.ground.events import RolledBack


@pytest.fixture
def make_watch(tmp_path):
    def make(*overrides):
        more = ("rl.iterations=20", "rl.episodes=128", "rl.save_interval=1", "rl.eval_interval=0")
        # Of the start checkpoint it reads nothing.
        watch = Watch(RlJob(small_config([*SMALL_RL, *more, *overrides]), None, tmp_path / "rl"))
        watch.job.output.mkdir(exist_ok=True)
        assert list(watch.begin(0)) == []
        return watch

    return make


def see(watch, number, successes, **more):
    watch.see(Iteration(number, 0, successes, 128, seconds=60.0, **more))
    return list(watch.record())


def test_it_goes_back_and_counts_on(make_watch):
    watch = make_watch()
    for number in (1, 2, 3):
        assert see(watch, number, 100) == []
        assert (watch.depth, watch.lr_factor) == (number + 1, 1.0)
    # The weights of 3, which play in iteration 4, are ruined; those of 2 have played the 100 of iteration 3.
    (back,) = see(watch, 4, 10)
    assert isinstance(back, RolledBack)
    assert (back.iteration, back.to, back.abandoned) == (4, 2, (3, 4))
    assert back.lr == pytest.approx(0.5 * watch.rl.lr)
    assert (watch.course.weights, watch.depth, watch.lr_factor) == (2, 3, 0.5)
    assert watch.note().startswith(
        "success 0.08, back to checkpoint 2: the success of the training episodes fell from "
    )
    assert watch.metrics() == {"rl/rollbacks": 1.0, "rl/rollbacks_left": 2.0}
    assert see(watch, 5, 101) == []
    assert watch.course.iterations[-1].parent == 2
    assert watch.position == 4


def test_another_watch_reads_the_same_course(make_watch):
    watch = make_watch()
    told = [
        event
        for number, successes in enumerate((100, 100, 100, 10, 101), start=1)
        for event in see(watch, number, successes)
    ]
    again = Watch(watch.job)
    assert list(again.begin(5)) == told
    assert again.course.iterations == watch.course.iterations


def test_the_state_of_the_checkpoint_before_the_newest_is_needed_while_it_is_sound(make_watch):
    watch = make_watch()
    see(watch, 1, 100)
    assert watch.needed == 0
    see(watch, 2, 100)
    assert watch.needed == 1
    see(watch, 3, 101)
    assert watch.needed == 2


def test_without_a_checkpoint_there_is_nothing_to_end_with(make_watch):
    watch = make_watch("rl.save_interval=20", "rl.max_rollbacks=0")
    for number in (1, 2):
        see(watch, number, 100)
    with pytest.raises(TrainingDiverged, match="fell from"):
        see(watch, 3, 10)


def test_the_progress_line_forecasts_the_next_target(make_watch):
    watch = make_watch()
    for number, successes in enumerate((20, 30, 42, 55, 68), start=1):
        see(watch, number, successes)
    assert watch.note().startswith("success 0.53, 80 % in ")
    metrics = watch.metrics()
    assert metrics["forecast/iterations_to_80_low"] < metrics["forecast/iterations_to_80"]
    assert metrics["forecast/iterations_to_80"] < metrics["forecast/iterations_to_90"]
    assert metrics["time/forecast_to_80_s"] == pytest.approx(60 * metrics["forecast/iterations_to_80"])

    flat = make_watch("rl.target_success=0.7")
    for number in range(1, 7):
        see(flat, number, 60 + number % 2)
    assert flat.note() == "success 0.47, 70 %: not known"
    assert not any(name.startswith("forecast/") for name in flat.metrics())


def test_an_older_release_left_no_course(make_watch):
    watch = make_watch()
    assert list(watch.begin(5)) == []
    assert (watch.course.weights, watch.depth) == (5, 6)
