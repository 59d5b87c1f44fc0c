from __future__ import annotations

import pytest
from scipy.stats import boschloo_exact

from rlinf_isaac.stats.boschloo import boschloo, power
from rlinf_isaac.stats.differences import independent_interval, paired_interval
from rlinf_isaac.stats.paired import PairedCounts, mcnemar
from rlinf_isaac.stats.power import Discordance, paired_episodes, paired_power
from rlinf_isaac.stats.retraining import Arm, compare_arms


@pytest.mark.parametrize(("first", "second"), [((15, 16), (11, 16)), ((3, 12), (9, 20)), ((0, 8), (8, 8))])
def test_boschloo_is_that_of_scipy(first, second):
    (a, n), (b, m) = first, second
    expected = boschloo_exact([[a, b], [n - a, m - b]]).pvalue
    assert boschloo(first, second) == pytest.approx(expected, rel=1e-3)


def test_the_size_of_boschloo_is_at_most_its_level():
    assert max(power((rate / 20, rate / 20), (30, 30), 0.05) for rate in range(21)) <= 0.05


def test_intervals_are_those_that_newcombe_printed():
    assert independent_interval((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert paired_interval(PairedCounts(20, 12, 2, 16)) == pytest.approx((0.0562, 0.3292), abs=1e-4)


def test_the_power_of_mcnemar_sums_over_what_rejects():
    from math import comb

    n, p, q = 20, 0.3, 0.1
    expected = sum(
        comb(n, w) * comb(n - w, lost) * p**w * q**lost * (1 - p - q) ** (n - w - lost)
        for w in range(n + 1)
        for lost in range(n + 1 - w)
        if mcnemar(w, lost) <= 0.05
    )
    assert paired_power(Discordance(p, q), n, 0.05) == pytest.approx(expected, rel=1e-9)
    enough = paired_episodes(Discordance(p, q), 0.05)
    assert paired_power(Discordance(p, q), enough, 0.05) >= 0.8 > paired_power(Discordance(p, q), enough - 1, 0.05)


def test_an_impossible_correlation_is_refused():
    with pytest.raises(ValueError, match="cannot have the correlation"):
        Discordance.of((0.9, 0.1), 0.5)


def test_of_single_trainings_the_noise_is_not_known():
    one, three = Arm.of([(45, 50)]), Arm.of([(50, 50)] * 3)
    assert not compare_arms(one, three).known
    assert one.retraining_sd is None
    alike = compare_arms(three, Arm.of([(48, 50)] * 3))  # no spread between trainings, yet no certainty
    assert alike.p_value > 0.05
