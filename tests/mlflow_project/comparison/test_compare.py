from __future__ import annotations

import pytest

from mlflow_project.comparison.compare import ANYTIME, BOSCHLOO, MCNEMAR, compare
from mlflow_project.comparison.tables import episode_tables, leaderboard_markdown
from rlinf_isaac.stats.paired import holm, mcnemar
from rlinf_isaac.stats.rates import wilson_interval

GOOD, MIDDLE, BAD = "s" * 40, "s" * 20 + "t" * 20, "d" * 5 + "t" * 35


def labels(standings):
    return [each.label for each in standings]


def test_clear_differences_are_ranked(evaluation):
    found = compare([evaluation(BAD, 1), evaluation(GOOD, 3), evaluation(MIDDLE, 2)])
    assert [(each.label, each.place) for each in found.standings] == [("step-3", "1"), ("step-2", "2"), ("step-1", "3")]
    assert found.verdict == "Clear winner: step-3 (100 %) is better than every other checkpoint (p < 0.001)."
    assert {pair.test for pair in found.pairs} == {MCNEMAR}
    raw = [mcnemar(20, 0), mcnemar(40, 0), mcnemar(20, 0)]
    assert [pair.p_value for pair in found.pairs] == raw
    assert [pair.adjusted for pair in found.pairs] == holm(raw)
    best = found.standings[0]
    assert (best.success.low, best.success.high) == wilson_interval(40, 40)
    assert found.standings[2].outcomes == {"drop": 5, "timeout": 35}


def test_three_with_equal_success_are_not_ranked_as_if_they_differed(evaluation):
    outcomes = ["sssstttttt", "ttttttssss", "sttsttstts"]
    found = compare([evaluation(each, step) for step, each in enumerate(outcomes, start=1)])
    assert {each.place for each in found.standings} == {"1-3"}
    assert found.top == found.standings
    tied = "step-1 (40 %), step-2 (40 %) and step-3 (40 %)"
    assert found.verdict == f"No clear winner: {tied} are statistically tied (every p at least 1.0)."


def test_a_small_lead_is_not_a_rank(evaluation):
    found = compare([evaluation("sss" + "t" * 7, 1), evaluation("ssss" + "t" * 6, 2), evaluation("t" * 10, 3)])
    assert labels(found.standings) == ["step-2", "step-1", "step-3"]
    assert {each.place for each in found.standings} == {"1-3"}


def test_one_checkpoint(evaluation):
    found = compare([evaluation(GOOD)])
    assert found.standings[0].place == "1"
    assert found.pairs == ()
    assert "nothing to compare" in found.verdict
    assert "| 1 | [step-100]" in leaderboard_markdown(found)


def test_sweeps_that_agree_are_paired_and_named(evaluation):
    other = {"sweep": "e" * 32, "sweep_name": "other"}
    found = compare([evaluation(GOOD, 1), evaluation(BAD, 1, checkpoint="2" * 64, run="9" * 32, **other)])
    assert labels(found.standings) == ["sweep / step-1", "other / step-1"]
    assert found.pairs[0].counts.n == 40
    assert found.groups == ((0, 1),)
    assert found.unpaired_reasons == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"environment": {"task": "stack3"}}, "task ('stack2' against 'stack3')"),
        ({"environment": {"backend": "isaaclab-3.0"}}, "backend"),
        ({"environment": {"assets": "b" * 64}}, "assets (aaaaaaaaaaaa against bbbbbbbbbbbb)"),
        ({"environment": {"prompt": "Stack it."}}, "prompt"),
        ({"environment": {"max_episode_steps": 100}}, "max episode steps (None against 100)"),
        ({"action_chunk": 4}, "action chunk (8 against 4)"),
        ({"policy_seed": 1}, "policy seed"),
        (None, "were not recorded"),
    ],
)
def test_sweeps_that_disagree_are_not_paired(evaluation, change, reason):
    one = evaluation(GOOD, 1)
    settings = {} if change is None else {**one.settings, **change}
    if change and "environment" in change:
        settings["environment"] = {**one.settings["environment"], **change["environment"]}
    other = evaluation(BAD, 2, sweep="e" * 32, sweep_name="with changes", settings=settings)
    found = compare([one, other])
    assert reason in found.unpaired_reasons[0]
    assert found.pairs[0].counts is None
    assert found.pairs[0].test == BOSCHLOO
    assert found.pairs[0].better == 0
    assert found.groups == ((0,), (1,))
    assert len(episode_tables(found)) == 2
    assert "Not paired" in leaderboard_markdown(found)


def test_without_seeds_not_even_the_checkpoints_of_a_sweep_are_paired(evaluation):
    one, other = evaluation(GOOD, 1), evaluation(BAD, 2)
    environment = {**one.settings["environment"], "task": "planes", "seeded": False}
    settings = {**one.settings, "environment": environment}
    for changed in (settings, {**one.settings, "tasks": {"planes": settings, "stack2": one.settings}}):
        found = compare([evaluation(GOOD, 1, settings=changed), evaluation(BAD, 2, settings=changed)])
        assert found.unpaired_reasons == ("the environment of planes takes no seed for an episode",)
        assert (found.pairs[0].test, found.pairs[0].counts) == (BOSCHLOO, None)
        assert found.groups == ((0,), (1,))
    assert compare([one, other]).pairs[0].test == MCNEMAR


def test_a_reason_is_given_once(evaluation):
    other = {"sweep": "e" * 32, "sweep_name": "other", "settings": {"action_chunk": 4}}
    found = compare([evaluation(GOOD, 1), evaluation(MIDDLE, 2, **other), evaluation(BAD, 3)])
    assert [pair.test for pair in found.pairs] == [BOSCHLOO, MCNEMAR, BOSCHLOO]
    assert len(found.unpaired_reasons) == 1


def test_other_seeds_are_not_paired_and_fewer_are(evaluation):
    other = {"sweep": "e" * 32, "sweep_name": "with changes"}
    found = compare([evaluation(GOOD, 1), evaluation(BAD, 2, first_seed=5001, **other)])
    assert "seeds (5000 to 5039 against 5001 to 5040)" in found.unpaired_reasons[0]
    found = compare([evaluation(GOOD, 1), evaluation(BAD[:10], 2, **other)])
    assert found.pairs[0].counts.n == 10


def test_the_same_checkpoint_in_two_sweeps_counts_once(evaluation):
    again = evaluation(GOOD, 1, sweep="e" * 32, sweep_name="again", run="8" * 32)
    found = compare([evaluation(GOOD, 1), evaluation(BAD, 2), again])
    assert labels(found.standings) == ["step-1", "step-2"]


def test_names_that_are_equal_or_taken_are_told_apart(evaluation):
    found = compare([evaluation(GOOD, 1, name="x"), evaluation(BAD, 2, name="x"), evaluation(BAD, 3, name="seed")])
    assert len(set(labels(found.standings)) | {"seed"}) == 4
    (rows,) = episode_tables(found)
    assert [row["seed"] for row in rows] == list(range(5000, 5040))
    assert len(rows[0]) == 1 + 3 + 2


def test_an_evaluation_until_decided_says_which(evaluation):
    settings = {**evaluation("s").settings, "stop_rule": {"batch": 10, "alpha": 0.05}}
    found = compare([evaluation(BAD, 1, settings=settings), evaluation(GOOD, 2, settings=settings)])
    assert found.verdict.startswith("Clear winner after 40 episodes each: step-2 (100 %) is better")
    assert found.pairs[0].test == ANYTIME
    assert found.pairs[0].p_value > mcnemar(40, 0)
    found = compare([evaluation("st" * 5, 1, settings=settings), evaluation("ts" * 5, 2, settings=settings)])
    assert found.verdict.startswith("No clear winner after 10 episodes each")


def test_a_mismatch_is_marked(evaluation):
    found = compare([evaluation(GOOD, 1, tags={"allow_mismatch": "true"}), evaluation(BAD, 2)])
    assert labels(found.standings)[0] == "step-1 (mismatch allowed)"
