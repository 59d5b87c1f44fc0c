from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from rlinf_isaac.stats.rates import macro_average, wilson_interval

one = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
several = st.lists(one, min_size=1, max_size=12)


@settings(deadline=None)
@given(one)
def test_of_a_single_task_it_is_wilsons(count):
    average = macro_average([count])
    assert (average.low, average.high) == wilson_interval(*count)


@settings(deadline=None)
@given(several)
def test_the_interval_holds_the_mean_of_the_rates_and_mirrors(counts):
    average = macro_average(counts)
    assert average.rate == pytest.approx(sum(k / n for k, n in counts) / len(counts))
    assert 0 <= average.low <= average.rate <= average.high <= 1
    mirrored = macro_average([(n - k, n) for k, n in counts])
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - average.high, 1 - average.low), abs=1e-9)
    assert (average.successes, average.n) == (sum(k for k, _ in counts), sum(n for _, n in counts))


@settings(deadline=None)
@given(several)
def test_the_order_of_the_tasks_does_not_matter(counts):
    one_way, other_way = macro_average(counts), macro_average(counts[::-1])
    assert (one_way.rate, one_way.low, one_way.high) == pytest.approx((other_way.rate, other_way.low, other_way.high))


@settings(deadline=None)
@given(one, st.integers(2, 10))
def test_equally_difficult_tasks_are_as_good_as_as_many_episodes_of_one(count, tasks):
    average = macro_average([count] * tasks)
    assert (average.low, average.high) == pytest.approx(wilson_interval(count[0] * tasks, count[1] * tasks))


@settings(deadline=None)
@given(st.integers(1, 40).flatmap(lambda n: st.lists(st.tuples(st.integers(0, n), st.just(n)), min_size=2, max_size=8)))
def test_it_is_never_wider_than_that_of_the_pooled_episodes(counts):
    average = macro_average(counts)
    low, high = wilson_interval(average.successes, average.n)
    assert low - 1e-12 <= average.low
    assert average.high <= high + 1e-12


def coverage(rates: tuple[float, ...], n: int) -> float:
    """The probability, summed over every possible outcome, that the interval holds the true macro average."""
    truth, covered = sum(rates) / len(rates), 0.0
    for successes in itertools.product(range(n + 1), repeat=len(rates)):
        average = macro_average([(k, n) for k in successes])
        if average.low <= truth <= average.high:
            chance = 1.0
            for k, rate in zip(successes, rates, strict=True):
                chance *= binom.pmf(k, n, rate)
            covered += chance
    return covered


@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.9, 0.1), (0.95, 0.6), (0.98, 0.98), (0.02, 0.5), (0.7, 0.8)])
def test_it_covers_the_truth_about_as_often_as_it_says(rates):
    assert coverage(rates, 20) >= 0.94


def test_it_is_narrower_than_that_of_the_pooled_episodes_where_the_tasks_differ():
    average = macro_average([(38, 40), (2, 40)])
    low, high = wilson_interval(40, 80)
    assert average.high - average.low < 0.7 * (high - low)


def test_there_is_no_average_of_nothing():
    with pytest.raises(ValueError, match="at least one task"):
        macro_average([])
