from __future__ import annotations

from mlflow_project.comparison.compare import compare


def test_the_verdict_on_two_tied_checkpoints_has_their_wins(evaluation):
    found = compare([evaluation("ttsss", 1), evaluation("sstss", 2)])
    tied = "step-2 (80 %) and step-1 (60 %)"
    assert found.verdict == f"No clear winner: {tied} are statistically tied (2 vs 1 seeds won, p = 1.0)."


def test_the_only_unbeaten_checkpoint_may_be_tied_with_a_beaten_one(evaluation):
    """The first has ten episodes, on which it beats the second, which beats the third on all forty."""
    outcomes = ["s" * 10, "t" * 10 + "s" * 30, "s" * 10 + "t" * 30]
    found = compare([evaluation(each, step) for step, each in enumerate(outcomes, start=1)])
    assert [standing.label for standing in found.top] == ["step-1"]
    assert found.verdict == (
        "No clear winner: no checkpoint is shown to be better than step-1 (100 %), but it is tied with step-3 (25 %)."
    )


def test_a_verdict_names_at_most_eight(evaluation):
    found = compare([evaluation("st", step) for step in range(1, 11)])
    assert "step-8 (50 %) and 2 more are statistically tied" in found.verdict
