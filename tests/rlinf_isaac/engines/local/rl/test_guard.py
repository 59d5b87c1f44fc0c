"""Collapses are recognised, and trainings that only fluctuate by chance are not taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.rl.course import Course, Iteration
from rlinf_isaac.engines.local.rl.guard import best, collapse, comparisons, give_up, target
from rlinf_isaac.stats.sequential import ALPHA

RL = RlConfig(iterations=22, episodes=128, eval_episodes=50, save_interval=5, eval_interval=5)


def simulated(rates, rl=RL, seed=0):
    """A training whose weights after iteration k have the success rate ``rates[k]``; held-out seeds are harder for some
    and easier for others, so that outcomes on them are correlated."""
    random = np.random.default_rng(seed)
    ease = random.uniform(-0.2, 0.2, rl.eval_episodes)
    course = Course()
    for number, rate in enumerate(rates):
        due = number % rl.eval_interval == 0 or number == rl.iterations
        held_out = tuple((random.random(rl.eval_episodes) < rate + ease).tolist()) if due else ()
        counts = int(random.binomial(rl.episodes, rates[number - 1])) if number else 0, rl.episodes if number else 0
        saved = number % rl.save_interval == 0
        newest = Iteration(number, max(0, number - 1), *counts, held_out, 0.01, 0.1, saved=saved)
        yield course, newest
        course.iterations.append(newest)


def alarm(rates, rl=RL, seed=0):
    """Number of the first iteration that is called a collapse, or None."""
    for course, newest in simulated(rates, rl, seed):
        if collapse(course, newest, rl):
            return newest.number
    return None


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_training_that_stays_as_it_is_hardly_ever_raises_an_alarm(rate):
    """At most 5 % of the trainings may, for certain; these have fixed seeds."""
    alarms = [alarm([rate] * 23, seed=seed) for seed in range(200)]
    assert sum(each is not None for each in alarms) <= ALPHA * 200


def test_a_training_that_improves_raises_none():
    assert all(alarm(np.linspace(0.3, 0.9, 23), seed=seed) is None for seed in range(50))


def test_a_collapse_is_recognised_in_the_iteration_that_plays_with_it():
    """Success falls from 80 % to 40 % by the update of the eighth iteration; the ninth plays with its weights."""
    rates = [0.8] * 8 + [0.4] * 15
    found = [alarm(rates, seed=seed) for seed in range(50)]
    assert sum(each == 9 for each in found) >= 45
    assert all(each in (9, 10) for each in found)


def test_it_says_what_fell_and_how_sure_that_is():
    course = Course([Iteration(0, 0, saved=True), Iteration(1, 0, 100, 128), Iteration(2, 1, 100, 128)])
    reason = collapse(course, Iteration(3, 2, 40, 128), RL)
    assert reason.startswith(
        "the success of the training episodes fell from 78.1 % [70.2, 84.4] (100/128) at the start"
    )
    assert "to 31.2 % [23.9, 39.7] (40/128) in iteration 3" in reason


def test_on_held_out_seeds_the_outcomes_are_compared_seed_by_seed():
    """The same two rates: once 20 of 30 seeds are lost and none gained, once 20 lost and 20 gained elsewhere."""
    before = (True,) * 30 + (False,) * 20
    lost = (False,) * 20 + (True,) * 10 + (False,) * 20
    moved = (False,) * 20 + (True,) * 10 + (True,) * 20
    course = Course([Iteration(0, 0, held_out=before, saved=True)])
    assert "20 seeds lost, 0 gained" in collapse(course, Iteration(1, 0, held_out=lost), RL)
    assert collapse(course, Iteration(1, 0, held_out=moved), RL) == ""


def test_the_level_is_shared_by_all_comparisons():
    rl = RlConfig(iterations=3, save_interval=1, eval_interval=1)
    # Training episodes: 2 with the start, 3 with the start and checkpoint 1, and one in reserve for 1. Held-out: 1 with
    # the start, 2 with two, 3 with three.
    assert comparisons(rl) == (1 + 1 + 2) + (1 + 2 + 3)
    assert comparisons(RlConfig(iterations=3, save_interval=1, eval_interval=0)) == 4


def test_episodes_of_a_grpo_group_are_not_independent():
    """16 groups of 8 that all begin alike are no 128 episodes."""
    counts = [Iteration(0, 0, saved=True), Iteration(1, 0, 64, 128), Iteration(2, 1, 64, 128)]
    fallen = Iteration(3, 2, 24, 128)
    assert collapse(Course(counts), fallen, RL)
    assert not collapse(Course(counts), fallen, RlConfig(**{**vars(RL), "algorithm": "grpo", "group_size": 8}))


@pytest.mark.parametrize(("kl", "clip", "words"), [(11.0, 0.1, "KL divergence of 11"), (0.1, 0.8, "clipped 80 %")])
def test_an_update_that_goes_too_far_is_a_collapse(kl, clip, words):
    rl = RlConfig(guard_kl=10, guard_clip_fraction=0.7)
    assert words in collapse(Course(), Iteration(1, 0, 5, 8, kl=kl, clip_fraction=clip), rl)
    assert collapse(Course(), Iteration(1, 0, 5, 8, kl=9.0, clip_fraction=0.6), rl) == ""


def test_it_goes_back_to_the_newest_checkpoint_that_is_not_separably_worse():
    course = Course(
        [
            Iteration(0, 0, saved=True),
            Iteration(1, 0, 60, 128, saved=True),
            Iteration(2, 1, 90, 128, saved=True),
            Iteration(3, 2, 88, 128, saved=True),
            Iteration(4, 3, 40, 128, saved=True),
        ]
    )
    # The weights of 3 played the 40 of iteration 4; those of 2 the 88, those of 1 the 90. Of 4 nothing is known.
    assert target(course, RL) == 4
    assert target(course, RL, before=4) == 2
    course.iterations.append(Iteration(5, 4, 30, 128))
    assert target(course, RL) == 2


def test_held_out_outcomes_count_more_than_training_episodes_where_both_have_them():
    good, bad = (True,) * 9 + (False,), (False,) * 9 + (True,)
    course = Course([Iteration(0, 0, held_out=good, saved=True), Iteration(1, 0, 1, 128, bad, saved=True)])
    course.iterations.append(Iteration(2, 1, 128, 128))
    assert target(course, RL) == 0


def test_the_result_has_the_highest_held_out_success_and_of_equals_it_is_the_newest():
    held = {0: (True, True), 2: (True, False), 4: (False, True), 6: (False, False)}
    course = Course([Iteration(number, max(0, number - 1), held_out=each, saved=True) for number, each in held.items()])
    assert best(course, RL) == 4
    assert best(Course([Iteration(0, 0, saved=True)]), RL) == 0


def test_without_held_out_evaluations_the_result_is_the_newest_sound_checkpoint():
    course = Course([Iteration(1, 0, 60, 128, saved=True), Iteration(2, 1, 90, 128, saved=True)])
    assert best(course, RL) == 2
    course.iterations.append(Iteration(3, 2, 10, 128))
    assert best(course, RL) == 1
    course = Course([Iteration(1, 0, 90, 128, saved=True), Iteration(2, 1, 10, 128)])
    assert best(course, RL) == 1, "the start is no result"


@pytest.mark.parametrize("seed", range(4))
def test_checkpoints_that_are_given_up_are_never_gone_back_to(seed):
    """Whatever the course, what is given up is decided anew from the recorded course alone, and never comes back."""
    rl = RlConfig(iterations=22, episodes=16, eval_episodes=20, save_interval=1, eval_interval=2, keep="last:1")
    lives, gone = Course(), set()
    for course, newest in simulated([0.2, 0.5, 0.7, 0.9, *[0.6] * 19], rl, seed):
        lives.iterations = [*course.iterations, newest]
        give_up(lives, rl)
        assert gone <= lives.gone
        gone = set(lives.gone)
        again = Course(lives.iterations)
        give_up(again, rl)
        assert again.gone == gone
        known = set(lives.checkpoints()) - gone
        assert {target(lives, rl), target(lives, rl, before=newest.number), best(lives, rl), lives.weights} <= known
    assert len(gone) > 12
    assert best(lives, rl) == best(Course(lives.iterations), rl), "the result is the one that it would have been"
