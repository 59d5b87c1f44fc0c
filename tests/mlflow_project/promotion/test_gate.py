"""The rules, each on its own: what it lets pass, what it refuses, and the numbers it names."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from mlflow_project.promotion.gate import RULES, Champion, Demands, Evidence, Ruling, judge, level
from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.stats.rates import difference_bound


def outcomes(text: str) -> dict[int, bool]:
    return {5000 + number: end == "s" for number, end in enumerate(text)}


SOUND = Evidence(
    files=4,
    bundle=(),
    links=9,
    breaks=(),
    overrides=(),
    rows=(),
    videos=2,
    unplayable=(),
    successes=outcomes("s" * 18 + "tt"),
    chosen_from=1,
)


def refusals(evidence: Evidence, demands: Demands | None = None) -> dict[str, str]:
    rulings = judge(evidence, demands or Demands())
    assert [ruling.rule for ruling in rulings] == list(RULES)
    return {ruling.rule: ruling.because for ruling in rulings if not ruling.passed}


def test_a_sound_candidate_passes_every_rule():
    assert refusals(SOUND) == {}


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("bundle", {"bundle": ("hash of model.safetensors",)}),
        ("lineage", {"breaks": ("edited dataset",)}),
        ("no-override", {"overrides": ("run 7",)}),
        ("rows", {"rows": ("another rate",)}),
        ("videos", {"unplayable": ("cut off",)}),
        ("videos", {"videos": 0}),
        ("not-rolled-back", {"rolled_back": "3"}),
        ("min-success", {"successes": outcomes("sstt")}),
        ("champion", {"champion": Champion("3", None, "other chunk")}),
        ("champion", {"champion": Champion("3", {1: False})}),
        ("champion", {"champion": Champion("3", SOUND.successes)}),
    ],
)
def test_one_fault_is_refused_by_one_rule(rule, changes):
    assert list(refusals(replace(SOUND, **changes))) == [rule]


tables = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@settings(deadline=None)
@given(tables, st.integers(0, 6), st.integers(1, 6), st.sampled_from(["better", "not-worse"]), st.floats(0.01, 0.3))
def test_the_statistics_are_scipys(pairs, before, sweep, require, alpha):
    mine, theirs = (dict(enumerate(side)) for side in zip(*pairs, strict=True))
    demands = Demands(min_success=0.4, require=require, margin=0.2, alpha=alpha)
    chosen = {"chosen_from": before + sweep, "newest_sweep": sweep}
    evidence = replace(SOUND, successes=mine, champion=Champion("3", theirs), **chosen)
    found = refusals(evidence, demands)
    asked = alpha / ((before + 1) * (before + sweep + 1))
    low = binomtest(sum(mine.values()), len(mine), alternative="greater").proportion_ci(1 - asked, "exact").low
    assert ("min-success" in found) == (low < 0.4)
    counts = PairedCounts.of(mine, theirs)
    if require == "better":
        different = counts.wins + counts.losses
        p_value = binomtest(counts.wins, different, alternative="greater").pvalue if different else 1.0
        assert ("champion" in found) == (p_value > asked)
    else:
        assert ("champion" in found) == (difference_bound(counts, asked) <= -0.2)


def test_the_best_of_many_has_to_show_more():
    evidence = replace(SOUND, successes=outcomes("s" * 15 + "t" * 5))
    assert refusals(evidence) == {}
    among = ("6 of sweep a", "4 of sweep b")
    best = replace(evidence, chosen_from=10, newest_sweep=4, chosen_among=among, since="3")
    because = refusals(best)["min-success"]
    assert "15/20 = 75 %" in because
    what = "the best of 10 evaluations since version 3 became champion: 6 of sweep a, 4 of sweep b"
    assert because.endswith(f"alpha is 0.05 / (7 x 11) as {what}")


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_all_evaluations_together_spend_alpha_and_no_more(sweeps):
    totals = list(accumulate(sweeps))
    levels = [level(Fraction(1, 20), total, sweep) for total, sweep in zip(totals, sweeps, strict=True)]
    assert levels == sorted(levels, reverse=True)
    spent = sum(sweep * each for sweep, each in zip(sweeps, levels, strict=True))
    assert spent == Fraction(1, 20) * (1 - Fraction(1, totals[-1] + 1))


@pytest.mark.parametrize(
    ("k", "first_sweep", "single"), [(1, 6, 6), (4, 7, 9), (10, 8, 12), (20, 9, 14), (100, 11, 18)]
)
def test_the_gates_table_of_wins_is_right(k, first_sweep, single):
    def passes(won: int, sweep: int) -> bool:
        champion = Champion("3", dict.fromkeys(range(won), False))
        won_all = replace(SOUND, successes=dict.fromkeys(range(won), True), champion=champion)
        return "champion" not in refusals(replace(won_all, chosen_from=k, newest_sweep=sweep))

    assert (passes(first_sweep, k), passes(first_sweep - 1, k)) == (True, False)
    assert (passes(single, 1), passes(single - 1, 1)) == (True, False)


def test_an_assumption_is_shown_and_refuses_nothing():
    def found(evidence: Evidence) -> Ruling:
        return next(each for each in judge(evidence, Demands()) if each.rule == "assumptions")

    assert found(SOUND) == Ruling("assumptions", True, "nothing was assumed")
    texts = ("prompt='Stack.' was assumed", "control_hz='20' was assumed")
    assert found(replace(SOUND, assumptions=texts)) == Ruling("assumptions", True, "; ".join(texts))


def test_not_worse_is_not_better():
    champion = Champion("3", outcomes("s" * 90 + "t" * 10))
    evidence = replace(SOUND, successes=champion.successes, champion=champion)
    assert list(refusals(evidence)) == ["champion"]
    assert refusals(evidence, Demands(require="not-worse", margin=0.05)) == {}
    lost = replace(evidence, successes=outcomes("s" * 80 + "t" * 20))
    assert "10 lost" in refusals(lost, Demands(require="not-worse", margin=0.15))["champion"]
