from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from rlinf_isaac.stats.sequential import StopRule, anytime_p_value, log_e_value, separate

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


def maps(pairs):
    return ({seed: pair[side] for seed, pair in enumerate(pairs)} for side in (0, 1))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 60))
def test_the_e_value_is_the_mixture_of_bets(wins, losses):
    mixed, _ = quad(lambda q: 2 * (2 * q) ** wins * (2 * (1 - q)) ** losses, 0.5, 1)
    assert math.exp(log_e_value(wins, losses)) == pytest.approx(mixed, rel=1e-6)


@settings(deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.floats(0, 0.5))
def test_no_bet_is_expected_to_gain_where_the_first_is_not_better(wins, losses, probability):
    now = log_e_value(wins, losses)
    won, lost = log_e_value(wins + 1, losses), log_e_value(wins, losses + 1)
    if np.isfinite(now):
        expected = probability * math.exp(won - now) + (1 - probability) * math.exp(lost - now)
        assert expected <= 1 + 1e-6


def test_it_starts_with_a_capital_of_one_and_stays_finite():
    assert log_e_value(0, 0) == pytest.approx(0)
    assert log_e_value(5000, 0) == pytest.approx(5001 * math.log(2) - math.log(5001), rel=1e-9)
    assert log_e_value(0, 5000) == -np.inf


@settings(deadline=None)
@given(outcomes)
def test_the_anytime_p_value_is_symmetric_and_never_grows(pairs):
    first, second = maps(pairs)
    p_value = anytime_p_value(first, second)
    assert 0 < p_value <= 1
    assert anytime_p_value(second, first) == pytest.approx(p_value)
    shorter = {seed: first[seed] for seed in list(first)[:-1]}
    assert p_value <= anytime_p_value(shorter, second)


def binary(rates, seeds, generator):
    return generator.random((*np.shape(rates), seeds)) < np.asarray(rates)[..., None]


def capitals(first, second):
    """Largest capital so far of the first against the second; (simulations, seeds) -> the same."""
    wins, losses = np.cumsum(first & ~second, axis=-1), np.cumsum(second & ~first, axis=-1)
    return np.maximum.accumulate(np.exp(log_e_value(wins, losses)), axis=-1)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_looking_after_every_seed_keeps_the_error_rate(rate):
    """2,000 evaluations of two equal checkpoints with 500 seeds, looked at after each: alpha = 0.05."""
    generator = np.random.default_rng(0)
    first, second = (binary(np.full(2000, rate), 500, generator) for _ in range(2))
    wins, losses = np.cumsum(first & ~second, axis=-1), np.cumsum(second & ~first, axis=-1)
    both_sides = (np.exp(log_e_value(wins, losses)) + np.exp(log_e_value(losses, wins))) / 2
    assert (both_sides.max(axis=-1) >= 1 / 0.05).mean() <= 0.05
    # `separate` with two checkpoints: either of them is called the best.
    called = (capitals(first, second)[:, -1] >= 2 / 0.05) | (capitals(second, first)[:, -1] >= 2 / 0.05)
    assert called.mean() <= 0.05


@pytest.mark.parametrize("rates", [(0.6, 0.6, 0.6, 0.6), (0.8, 0.8, 0.3), (0.7, 0.65, 0.65)])
def test_calling_a_wrong_best_is_rare(rates):
    """Among several checkpoints: whoever ties for the best, or is worse, is called the best in at most 5 % of 2,000."""
    generator = np.random.default_rng(1)
    results = [binary(np.full(2000, rate), 300, generator) for rate in rates]
    wrong = np.zeros(2000, dtype=bool)
    for i, first in enumerate(results):
        others = [capitals(first, second)[:, -1] for j, second in enumerate(results) if j != i]
        if any(rates[j] >= rates[i] for j in range(len(rates)) if j != i):
            wrong |= np.min(others, axis=0) >= len(rates) / 0.05
    assert wrong.mean() <= 0.05


def test_a_clear_best_is_separated():
    seeds = range(40)
    good, bad, worse = dict.fromkeys(seeds, True), dict.fromkeys(seeds, False), {s: s % 4 == 0 for s in seeds}
    found = separate([bad, good, worse])
    assert found.decided
    assert found.best == 1
    assert found.needed == 60
    assert not separate([bad, good, dict(good)]).decided, "two that are equal are not separated from each other"


def test_before_the_first_seed_nothing_is_decided():
    assert separate([{}, {}]).e_value == 1
    assert anytime_p_value({}, {}) == 1
    with pytest.raises(ValueError, match="nothing to separate"):
        separate([{1: True}])


def test_batches_cover_the_seeds_in_order():
    assert [list(batch) for batch in StopRule(4).rounds(range(10))] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
