from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest, multinomial

from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.stats.rates import (
    PairedGain,
    RateEstimate,
    clopper_pearson_interval,
    difference_bound,
    wilson_interval,
)

counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
confidences = st.floats(0.5, 0.999)
INTERVALS = {"wilson": wilson_interval, "exact": clopper_pearson_interval}


@settings(deadline=None)
@given(counts, confidences)
def test_the_wilson_interval_is_scipys(count, confidence):
    expected = binomtest(*count).proportion_ci(confidence, "wilson")
    assert wilson_interval(*count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(deadline=None)
@given(counts, confidences)
def test_the_exact_interval_is_of_quantiles_of_beta_distributions(count, confidence):
    (successes, n), tail = count, (1 - confidence) / 2
    low = beta.ppf(tail, successes, n - successes + 1) if successes else 0
    high = beta.isf(tail, successes + 1, n - successes) if successes < n else 1
    assert clopper_pearson_interval(*count, confidence) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("interval", INTERVALS.values())
@settings(deadline=None)
@given(counts, confidences)
def test_intervals_hold_the_rate_and_mirror(interval, count, confidence):
    successes, n = count
    low, high = interval(successes, n, confidence)
    assert 0 <= low <= successes / n <= high <= 1
    mirrored = interval(n - successes, n, confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("interval", INTERVALS.values())
def test_none_and_all_succeeded(interval):
    low, high = interval(0, 50)
    assert low == 0.0
    assert 0.05 < high < 0.08
    assert interval(50, 50) == (pytest.approx(1 - high), 1.0)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.86, 0.99])
def test_the_exact_interval_never_covers_less_than_it_says(rate):
    n = 50
    covered = sum(
        binom.pmf(successes, n, rate)
        for successes in range(n + 1)
        if (interval := clopper_pearson_interval(successes, n))[0] <= rate <= interval[1]
    )
    assert covered >= 0.95


@pytest.mark.parametrize("interval", INTERVALS.values())
@pytest.mark.parametrize(
    ("successes", "n", "confidence"),
    [
        (0, 0, 0.95),
        (1, 0, 0.95),
        (-1, 5, 0.95),
        (6, 5, 0.95),
        (1, 5, 0.0),
        (1, 5, 1.0),
        (1, 5, 95),
        (1, 5, float("nan")),
    ],
)
def test_impossible_counts(interval, successes, n, confidence):
    with pytest.raises(ValueError, match=r"\d"):
        interval(successes, n, confidence)


@pytest.mark.parametrize(
    ("successes", "n", "text"),
    [
        (43, 50, "86.0 % [73.8, 93.0] (43/50)"),
        (0, 50, "0.0 % [0.0, 7.1] (0/50)"),
        (50, 50, "100.0 % [92.9, 100.0] (50/50)"),
        (1, 1, "100.0 % [20.7, 100.0] (1/1)"),
    ],
)
def test_a_rate_prints_with_its_interval_and_counts(successes, n, text):
    assert str(RateEstimate.of(successes, n)) == text


def test_a_rate_without_trials():
    with pytest.raises(ValueError, match="at least one trial"):
        RateEstimate.of(0, 0)


@settings(deadline=None, max_examples=100)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_a_paired_gain_is_the_sign_test_of_the_seeds_that_differ(pairs):
    before, after = ({seed: pair[i] for seed, pair in enumerate(pairs)} for i in (0, 1))
    gain = PairedGain.of(before, after)
    assert (gain.before, gain.after, gain.n) == (sum(before.values()), sum(after.values()), len(pairs))
    assert gain.after - gain.before == gain.gained - gain.lost
    differing = gain.gained + gain.lost
    expected = binom.sf(gain.gained - 1, differing, 0.5) if differing else 1.0
    assert gain.p_value == pytest.approx(expected)


def test_a_paired_gain_needs_the_same_seeds():
    with pytest.raises(ValueError, match="same seeds"):
        PairedGain.of({1: True}, {2: True})
    with pytest.raises(ValueError, match="same seeds"):
        PairedGain.of({}, {})


@pytest.mark.parametrize("n", [1, 4, 12, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_bound_of_a_paired_difference_errs_at_most_as_often_as_it_says(n, alpha):
    """All outcomes of n pairs, enumerated, at every pair of true rates on a grid."""
    outcomes = [(wins, losses) for wins in range(n + 1) for losses in range(n + 1 - wins)]
    bounds = [difference_bound(PairedCounts(0, *outcome, n - sum(outcome)), alpha) for outcome in outcomes]
    table = [(*outcome, n - sum(outcome)) for outcome in outcomes]
    grid = [i / 20 for i in range(21)]
    worst = 0.0
    for only_first in grid:
        for only_second in grid:
            if only_first + only_second > 1:
                continue
            chances = multinomial.pmf(table, n, [only_first, only_second, max(0.0, 1 - only_first - only_second)])
            difference = only_first - only_second + 1e-9
            worst = max(worst, sum(p for p, bound in zip(chances, bounds, strict=True) if bound > difference))
    assert worst <= alpha
    assert n == 1 or worst > 0, "it would never err, so it would say nothing"


def test_the_bound_of_a_paired_difference_in_numbers():
    assert difference_bound(PairedCounts(80, 0, 0, 20), 0.05) == pytest.approx(-0.0362, abs=1e-4)
    assert difference_bound(PairedCounts(60, 30, 0, 10), 0.05) > 0.1
    with pytest.raises(ValueError, match="at least one trial"):
        difference_bound(PairedCounts(0, 0, 0, 0), 0.05)
