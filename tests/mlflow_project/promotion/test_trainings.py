"""The rule ``training-seeds``: what it asks for, and what it says of a gain."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlflow_project.promotion.gate import Demands
from mlflow_project.promotion.trainings import Trainings, read_trainings, rule_on
from rlinf_isaac.ground.errors import InvalidJob


def read(run: str) -> list[SimpleNamespace]:
    """A run named after how many of 50 episodes its last checkpoint solves."""
    solved = int(run.split("-")[-1])
    rows = [SimpleNamespace(success=seed < solved) for seed in range(50)]
    return [SimpleNamespace(run=run, name=run, task="push", step=1, checkpoint=f"of {run}", rows=rows)]


def ruling(*words: str, champion: str | None = "of b-20", **demands):
    return rule_on(read_trainings(words, read), "of a-40", champion, Demands(training_seeds=3, **demands))


def test_a_gain_that_every_training_has_passes():
    found = ruling("candidate=a-40,a-41,a-42", "champion=b-20,b-21,b-22")
    assert found.passed
    assert "3 trainings, mean 82.0 %, sd between trainings" in found.because


def test_a_gain_within_the_noise_of_retraining_is_refused():
    words = "candidate=a-40,a-20,a-36", "champion=b-20,b-34,b-30"
    found = ruling(*words)
    assert not found.passed
    assert found.because.endswith("this gain is within the noise of retraining")
    assert not ruling(*words, require="not-worse").passed
    assert ruling("candidate=a-40,a-41,a-39", "champion=b-20,b-40,b-41", require="not-worse", margin=0.9).passed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["candidate=a-40,a-41", "champion=b-20,b-21,b-22"], "2 trainings of the candidate's recipe, required 3"),
        (["candidate=a-40,a-41,a-42"], "0 trainings of the champion's recipe"),
        (["candidate=a-39,a-41,a-42", "champion=b-20,b-21,b-22"], "has evaluated the candidate's checkpoint"),
    ],
)
def test_trainings_that_are_not_there(words, said):
    found = ruling(*words)
    assert not found.passed
    assert said in found.because


def test_without_a_champion_the_trainings_are_only_counted():
    assert ruling("candidate=a-40,a-41,a-42", champion=None).passed
    assert not rule_on(Trainings(), "of a-40", None, Demands(training_seeds=2)).passed


def test_other_arms_are_refused():
    with pytest.raises(InvalidJob, match="bad-arm"):
        read_trainings(["candidate=a-1,a-2", "former=b-1"], read)
