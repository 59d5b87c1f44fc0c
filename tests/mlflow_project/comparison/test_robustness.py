"""Varied arms against their control, and the second success rule, on the page and in the tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlflow_project._api.results import Compared
from mlflow_project.comparison.compare import compare, pairing_problem
from mlflow_project.comparison.evaluations import Varied
from mlflow_project.comparison.report import render
from mlflow_project.comparison.robustness import axes_of, robustness_metrics, robustness_notes
from mlflow_project.comparison.success_rules import audit_metrics, audit_of
from mlflow_project.comparison.tables import leaderboard_markdown
from rlinf_isaac.stats.differences import paired_difference
from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.tasks.success_rules import TOUCHED_AT_END, TOUCHED_ONCE


@pytest.fixture
def varied(evaluation):
    """A checkpoint that loses eight of twelve seeds by the light, and wins one by the mass."""
    control, dark, light_cubes = evaluation("ssssssssssst", 1), evaluation("sssttttttttt", 2), evaluation("s" * 12, 3)
    return replace(control, varied=(Varied("light", 1.0, dark.rows), Varied("mass", 0.5, light_cubes.rows)))


def test_newcombes_own_example():
    """R. G. Newcombe (1998), table II: 36, 12, 2, 0 of 50 pairs."""
    assert paired_difference(PairedCounts(36, 12, 2, 0)) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


def test_each_axis_is_tested_against_its_control_and_corrected_over_the_axes(varied):
    light, mass = axes_of(varied)
    assert (light.counts.wins, light.counts.losses, light.counts.n) == (0, 8, 12)
    assert light.p_value == pytest.approx(2 / 2**8)
    assert light.adjusted == pytest.approx(2 * light.p_value)
    assert light.shown
    assert light.difference.high < 0
    assert (mass.p_value, mass.shown, mass.difference.value) == (1, False, pytest.approx(1 / 12))
    assert robustness_metrics(varied)["robustness/light/difference"] == pytest.approx(-8 / 12)
    (note,) = robustness_notes(compare([varied]).standings)
    assert note.endswith("a difference is shown for light.")
    assert 'id="robustness"' in render(compare([varied]), "sweep")
    assert list(Compared(compare([varied])).robustness()["only control solved"]) == [8, 0]
    # Varied episodes count nowhere else.
    assert compare([varied]).standings[0].success.successes == 11


def test_episodes_of_another_variation_are_not_paired(varied):
    plain = replace(varied, settings={"environment": {}, "vary": None}, sweep="one", sweep_name="one")
    other = replace(plain, settings={"environment": {}, "vary": {"axis": "light"}}, sweep="two", sweep_name="two")
    assert "vary" in (pairing_problem(plain, other) or "")


def test_both_rules_on_the_same_episodes(varied):
    assert audit_of(varied.rows) is None, "rows of earlier releases"
    assert audit_metrics(varied.rows) == {}
    fallen, standing = ({TOUCHED_ONCE: 1.0, TOUCHED_AT_END: end} for end in (0.0, 1.0))
    missed = {TOUCHED_ONCE: 0.0, TOUCHED_AT_END: 0.0}
    solved, unsolved = varied.rows[0], varied.rows[-1]
    rows = [
        *(replace(solved, seed=seed, extras=standing) for seed in (1, 2)),
        *(replace(unsolved, seed=3 + i, extras=extras) for i, extras in enumerate((fallen, standing, missed))),
        replace(unsolved, seed=9),  # of an earlier release: it does not count
    ]
    audit = audit_of(rows)
    assert audit is not None
    assert (audit.at_rest.successes, audit.touched.successes, audit.more, audit.fell, audit.touched.n) == (
        2,
        4,
        2,
        1,
        5,
    )
    assert audit.sentence.endswith("80.0 %, not 40.0 %: 2 episodes more, of which 1 fell again")
    assert audit_metrics(rows) == {"eval/success_touched": 0.8, "eval/touched_fell_rate": 0.2}
    comparison = compare([replace(varied, rows=tuple(rows))])
    page = render(comparison, "sweep")
    assert 'id="rules"' in page
    assert "touched_once" not in page, "no number of the environment, which have a table of their own"
    assert "of which 1 fell again" in leaderboard_markdown(comparison)
