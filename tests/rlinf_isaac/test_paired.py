from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, pearsonr

from rlinf_isaac.paired import PairedCounts, holm, mcnemar

outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=150)
probabilities = st.lists(st.floats(0, 1), max_size=6)


def maps(pairs):
    return ({seed: pair[side] for seed, pair in enumerate(pairs)} for side in (0, 1))


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.sampled_from(["two-sided", "greater"]))
def test_mcnemar_is_scipys_sign_test(wins, losses, alternative):
    expected = binomtest(wins, wins + losses, alternative=alternative).pvalue if wins + losses else 1.0
    assert mcnemar(wins, losses, alternative) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(outcomes)
def test_the_four_counts_and_their_correlation(pairs):
    first, second = maps(pairs)
    counts = PairedCounts.of(first, second)
    assert counts.n == len(pairs)
    assert counts.wins == sum(a and not b for a, b in pairs)
    assert counts.losses == sum(b and not a for a, b in pairs)
    assert counts.both == sum(a and b for a, b in pairs)
    assert counts.p_value() == mcnemar(counts.wins, counts.losses)
    if len(set(first.values())) == len(set(second.values())) == 2:
        x, y = np.array(pairs, dtype=float).T
        assert counts.phi == pytest.approx(pearsonr(x, y).statistic)
    else:
        assert counts.phi is None


def test_only_common_seeds_count():
    assert PairedCounts.of({1: True, 2: True}, {2: False, 3: True}) == PairedCounts(0, 1, 0, 0)


def test_negative_counts():
    with pytest.raises(ValueError, match="-1"):
        mcnemar(-1, 3)


@settings(deadline=None)
@given(probabilities, st.floats(0.001, 0.999))
def test_holm_rejects_what_closed_testing_with_bonferroni_rejects(p_values, alpha):
    adjusted = holm(p_values)
    everything = range(len(p_values))
    families = [set(family) for size in everything for family in combinations(everything, size + 1)]
    rejected = [family for family in families if min(p_values[i] for i in family) <= alpha / len(family)]
    for i in everything:
        closed = all(family in rejected for family in families if i in family)
        # A p-value just at the border may fall to either side by rounding.
        if abs(adjusted[i] - alpha) > 1e-12:
            assert (adjusted[i] <= alpha) == closed


@settings(deadline=None)
@given(probabilities)
def test_holm_keeps_the_order_and_never_makes_smaller(p_values):
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert list(np.diff([adjusted[i] for i in order]) >= 0) == [True] * max(0, len(p_values) - 1)
