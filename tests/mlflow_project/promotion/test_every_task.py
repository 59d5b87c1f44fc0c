from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from mlflow_project.promotion.every_task import by_task
from mlflow_project.promotion.gate import Champion, Demands, Evidence, judge


def of_tasks(**outcomes: str) -> dict:
    return {(5000 + n, task): end == "s" for task, ends in outcomes.items() for n, end in enumerate(ends)}


SOUND = Evidence(4, (), 9, (), (), (), 2, (), of_tasks(reach="s" * 20, push="s" * 19 + "t"), chosen_from=1)
STRICT = Demands(every_task=True)


def rulings(evidence, demands=STRICT):
    return {ruling.rule: ruling for ruling in judge(evidence, demands)}


def refusal(evidence, demands=STRICT):
    found = {rule: each.because for rule, each in rulings(evidence, demands).items() if not each.passed}
    return found.get("every-task", "")


def test_the_rule_is_there_only_where_it_is_asked_for():
    assert "every-task" not in rulings(SOUND, Demands())
    assert rulings(SOUND)["every-task"].passed
    assert rulings(SOUND)["rows"].because == "40 episodes of 2 tasks, seeds 5000 to 5019"
    assert rulings(SOUND)["min-success"].because.startswith("macro average of 2 tasks, 39/40")


def test_a_weak_task_is_named_though_the_average_is_good():
    weak = replace(SOUND, successes=of_tasks(reach="s" * 20, push="s" * 12 + "t" * 8))
    assert rulings(weak)["min-success"].passed
    assert "push: 12/20" in refusal(weak)
    assert "reach" not in refusal(weak)
    assert all(ruling.passed for ruling in rulings(weak, Demands()).values())


def test_a_loss_against_the_champion_in_one_task_is_named():
    own = of_tasks(reach="s" * 40, push="s" * 28 + "t" * 12)
    champion = of_tasks(reach="t" * 40, push="s" * 40)
    worse = replace(SOUND, successes=own, champion=Champion("3", champion))
    assert rulings(worse)["champion"].passed  # 40 won, 12 lost
    assert "push: 0 won, 12 lost against the champion" in refusal(worse)
    assert "reach" not in refusal(worse)


def test_of_a_single_task_it_is_that_task():
    one = replace(SOUND, successes={5000 + n: n < 12 for n in range(20)})
    assert "the task: 12/20" in refusal(one)
    assert by_task({1: True, (2, "a"): False}) == {"the task": {1: True}, "a": {2: False}}


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.text("st", min_size=5, max_size=30), min_size=1))
def test_each_task_passes_by_the_exact_test_and_all_must(outcomes):
    evidence = replace(SOUND, successes=of_tasks(**outcomes))
    level = STRICT.alpha / 2  # K = M = 1
    reached = {}
    for task, ends in outcomes.items():
        # The chance of so many successes or more at the required rate.
        reached[task] = binom.sf(ends.count("s") - 1, len(ends), STRICT.min_success) <= level
    because = refusal(evidence)
    assert (because == "") == all(reached.values())
    for task, passed in reached.items():
        assert (f"{task}: " in because) == (not passed)


@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.8, 0.2), (0.99, 0.01), (0.3, 0.7)])
def test_the_bound_of_the_pooled_episodes_holds_for_a_macro_average(rates):
    """At a macro average of 50 % the gate lets pass what it says at most, however the tasks differ."""
    n, level = 20, 0.025
    chances = [binom.pmf(range(n + 1), n, rate) for rate in rates]
    needed = next(k for k in range(2 * n + 1) if binom.sf(k - 1, 2 * n, 0.5) <= level)
    passed = sum(chances[0][i] * chances[1][j] for i in range(n + 1) for j in range(n + 1) if i + j >= needed)
    assert passed <= level
