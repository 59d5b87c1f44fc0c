"""Arms: which checkpoint of a run counts, what is refused, and what is not known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlflow_project.comparison.arms import NOT_KNOWN, arm_pairs, arm_sentences, arm_table, parse_arms, read_arms
from rlinf_isaac.ground.errors import InvalidJob


def evaluation(run: str, solved: int, step: int = 1, checkpoint: str = "") -> SimpleNamespace:
    rows = [SimpleNamespace(success=seed < solved) for seed in range(50)]
    return SimpleNamespace(run=run, name=run, task="push", step=step, checkpoint=checkpoint, rows=rows)


def arms(**solved: list[int]):
    named = {name: [f"{name}:{k}" for k in counts] for name, counts in solved.items()}
    return read_arms(named, lambda run: [evaluation(run + "-early", 50, 0), evaluation(run, int(run.split(":")[1]))])


def test_the_last_checkpoint_of_each_training_counts():
    compared = arms(sft=[20, 22, 24], rl=[40, 42, 44], other=[21, 23, 25])
    first = arm_table(compared)[0]
    assert (first["trainings"], first["mean"]) == (3, pytest.approx(0.44))
    assert first["low"] < 0.44 < first["high"]
    pair = arm_pairs(compared)[0]
    assert pair.gain.difference == pytest.approx(-0.4)
    assert pair.gain.p_value < pair.adjusted < 0.05


def test_of_a_single_training_the_noise_is_not_known():
    compared = arms(sft=[20], rl=[40, 42])
    assert arm_pairs(compared)[0].adjusted is None
    assert arm_sentences(compared)[-1].endswith(NOT_KNOWN)


@pytest.mark.parametrize(
    "words", [["a=1,2"], ["a", "b=1"], ["a=1", "a=2"], ["a=1,1", "b=2"], ["=1", "b=2"], ["a=1,", "b=2"]]
)
def test_what_is_no_arm_is_refused(words):
    with pytest.raises(InvalidJob) as refused:
        parse_arms(words)
    assert {each.code for each in refused.value.problems} == {"bad-arm"}


def test_one_checkpoint_is_one_training_and_two_of_one_step_are_ambiguous():
    with pytest.raises(InvalidJob) as refused:
        read_arms({"a": ["1"], "b": ["2"]}, lambda run: [evaluation(run, 3, checkpoint="same")])
    assert len(refused.value.problems) == 1
    with pytest.raises(InvalidJob):
        read_arms({"a": ["1"]}, lambda run: [evaluation(run + "x", 3), evaluation(run + "y", 4)])


def test_arms_of_different_tasks_are_refused():
    def read(run):
        found = evaluation(run, 3)
        found.task = run
        return [found]

    with pytest.raises(InvalidJob, match="different tasks: push, reach"):
        read_arms({"a": ["push"], "b": ["reach"]}, read)
