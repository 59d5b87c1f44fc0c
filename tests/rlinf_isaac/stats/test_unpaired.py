from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from rlinf_isaac.stats.unpaired import fisher

counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None, max_examples=100)
@given(first=counts, second=counts)
def test_it_is_the_one_sided_test_of_scipy(first, second):
    (a, n), (b, m) = first, second
    expected = fisher_exact([[a, n - a], [b, m - b]], alternative="greater").pvalue
    assert fisher(first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("pair", [((-1, 3), (0, 3)), ((4, 3), (0, 3)), ((1, 3), (4, 3))])
def test_counts_that_cannot_be_are_refused(pair):
    with pytest.raises(ValueError, match="no counts"):
        fisher(*pair)


def test_of_no_episodes_nothing_is_said():
    assert fisher((0, 0), (3, 5)) == 1.0
