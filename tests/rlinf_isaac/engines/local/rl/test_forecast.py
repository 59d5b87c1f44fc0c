"""Forecasts of simulated trainings, whose future is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlinf_isaac.engines.local.rl.course import Course, Iteration
from rlinf_isaac.engines.local.rl.forecast import Forecast, forecast


def log_odds(rate):
    return math.log(rate / (1 - rate))


def simulated(slope, iterations, seed, *, start=-1.0, offset=0.5, episodes=128, eval_interval=5, eval_episodes=50):
    """A training whose log odds rise by `slope` per iteration, and are higher by `offset` without exploration."""
    random = np.random.default_rng(seed)

    def played(count, odds):
        return tuple((random.random(count) < 1 / (1 + math.exp(-odds))).tolist())

    course = Course([Iteration(0, 0, held_out=played(eval_episodes, start + offset), saved=True)])
    for number in range(1, iterations + 1):
        successes = sum(played(episodes, start + slope * (number - 1)))
        due = eval_interval and number % eval_interval == 0
        held_out = played(eval_episodes, start + offset + slope * number) if due else ()
        course.iterations.append(Iteration(number, number - 1, successes, episodes, held_out, seconds=30.0))
    return course


@pytest.mark.parametrize(("slope", "iterations"), [(0.2, 5), (0.2, 8), (0.1, 12)])
def test_the_interval_contains_the_truth_at_least_as_often_as_it_says(slope, iterations):
    truth = (log_odds(0.8) - (-1.0 + 0.5)) / slope - iterations
    found = [forecast(simulated(slope, iterations, seed), 0.8) for seed in range(200)]
    made = [each for each in found if each is not None]
    assert len(made) >= 120
    assert np.mean([each.low <= truth <= each.high for each in made]) >= 0.9


def test_without_a_trend_it_is_not_known():
    found = [forecast(simulated(0.0, iterations, seed), 0.8) for iterations in (5, 10, 20) for seed in range(100)]
    assert np.mean([each is not None for each in found]) <= 0.07


def test_the_estimate_is_where_the_line_of_the_held_out_episodes_crosses():
    found = forecast(simulated(0.1, 10, 0, episodes=200_000, eval_episodes=200_000), 0.8)
    assert found.iterations == pytest.approx((log_odds(0.8) + 0.5) / 0.1 - 10, abs=0.3)
    assert found.episodes == pytest.approx(200_000 * found.iterations)
    assert found.seconds == pytest.approx(30 * found.iterations)
    assert found.high - found.low < 1


def test_without_held_out_evaluations_it_is_that_of_the_training_episodes():
    course = simulated(0.1, 10, 0, episodes=200_000, eval_interval=0)
    course.iterations.pop(0)
    assert forecast(course, 0.8).iterations == pytest.approx((log_odds(0.8) + 1.0) / 0.1 - 10, abs=0.3)


def test_it_takes_five_iterations():
    assert forecast(simulated(0.5, 4, 0, episodes=1000), 0.9) is None
    assert forecast(simulated(0.5, 5, 0, episodes=1000), 0.9) is not None
    assert forecast(Course(), 0.9) is None


def test_what_was_abandoned_does_not_count():
    """After a fall and a roll-back, the line is the one that goes on."""
    course = simulated(0.1, 10, 0, episodes=100_000)
    expected = forecast(course, 0.8)
    for number in (11, 12, 13):
        back = 10 if number == 13 else None
        course.iterations.append(Iteration(number, number - 1, 100, 100_000, seconds=30.0, back_to=back))
    assert forecast(course, 0.8) == expected


@pytest.mark.parametrize("successes", [0, 128])
def test_episodes_that_all_end_alike_show_no_trend(successes):
    course = Course([Iteration(number, number - 1, successes, 128, seconds=1.0) for number in range(1, 9)])
    assert forecast(course, 0.8) is None


def test_a_target_that_lies_behind_is_reached():
    found = forecast(simulated(0.5, 10, 0), 0.5)
    assert (found.iterations, found.low, found.high) == (0, 0, 0)
    assert str(found) == "50 % reached"


def test_in_words():
    assert str(Forecast(0.8, 10, 7, 16, 640, 600, 420, 9000)) == "80 % in 10 min (7 min to 2.5 h), 640 episodes"
