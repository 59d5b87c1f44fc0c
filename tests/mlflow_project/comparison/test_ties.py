from __future__ import annotations

import pytest

from mlflow_project.comparison.compare import compare
from mlflow_project.comparison.report import render
from mlflow_project.comparison.tables import leaderboard_markdown, pair_table
from mlflow_project.comparison.ties import episodes_more, tie_notes
from rlinf_isaac.stats.differences import independent_interval, paired_interval
from rlinf_isaac.stats.power import Discordance, paired_power
from rlinf_isaac.stats.sequential_power import episodes


def outcomes(both, wins, losses, neither):
    """Those of two checkpoints on the same seeds."""
    first = "s" * (both + wins) + "t" * (losses + neither)
    return first, "s" * both + "t" * wins + "s" * losses + "t" * neither


def pair(evaluation, counts, **more):
    return compare([evaluation(each, step, **more) for step, each in enumerate(outcomes(*counts), start=1)])


def test_what_would_settle_a_tie_is_said_everywhere(evaluation):
    found = pair(evaluation, (48, 9, 4, 3))
    total = 64 + episodes_more(found, found.pairs[0])
    seen = Discordance(9 / 64, 4 / 64)
    assert paired_power(seen, total, 0.05) >= 0.8 > paired_power(seen, total - 1, 0.05)
    (note,) = tie_notes(found)
    assert "about 210 seeds more" in note
    assert "+7.8 points (95 % interval" in note
    assert note in render(found, "page").replace("&#43;", "+").replace("&#39;", "'")
    assert "about 210 seeds more" in leaderboard_markdown(found)


@pytest.mark.parametrize(
    ("counts", "words"),
    [((40, 0, 24, 0), None), ((40, 6, 6, 4), "solved equally many"), ((300, 30, 29, 4), "more than 10,000 seeds")],
)
def test_other_ends(evaluation, counts, words):
    notes = tie_notes(pair(evaluation, counts))
    assert notes == [] if words is None else words in notes[0]


def test_until_decided_it_is_the_e_process_that_has_to_decide(evaluation):
    settings = {**evaluation("s").settings, "stop_rule": {"batch": 10, "alpha": 0.05}}
    found = pair(evaluation, (48, 9, 4, 3), settings=settings)
    more = episodes_more(found, found.pairs[0])
    assert more == episodes(Discordance(9 / 64, 4 / 64), counted=(9, 4))
    assert more + 64 != episodes(Discordance(9 / 64, 4 / 64))  # it goes on from the evidence so far
    assert pair_table(found)[0]["difference"] is None


def test_the_table_of_pairs_has_the_difference_with_its_interval(evaluation):
    row = pair_table(found := pair(evaluation, (48, 9, 4, 3)))[0]
    assert (row["difference low"], row["difference high"]) == paired_interval(found.pairs[0].counts)
    other = {"sweep": "e" * 32, "sweep_name": "other", "settings": {"action_chunk": 4}}
    found = compare([evaluation("s" * 61 + "t" * 3, 1), evaluation("s" * 55 + "t" * 9, 2, **other)])
    row = pair_table(found)[0]
    assert row["p"] == pytest.approx(0.093, abs=5e-4)
    assert (row["difference low"], row["difference high"]) == independent_interval((61, 64), (55, 64))
    assert "episodes of each more" in tie_notes(found)[0]
