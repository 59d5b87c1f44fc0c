from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from support import SETTINGS, make_evaluation

from mlflow_project.comparison.compare import compare
from mlflow_project.comparison.episodes import episode_row, table_row
from mlflow_project.comparison.report import render
from mlflow_project.comparison.tables import (
    episode_tables,
    leaderboard_markdown,
    task_notes,
    task_pair_table,
    task_rates,
)
from mlflow_project.recorders.sweep_recorder import evaluation_metrics
from rlinf_isaac.stats.rates import macro_average, wilson_interval

TASKS = ("b/reach", "a/push")
"""Not in the order of the alphabet: the suite's own order counts."""


def of_tasks(outcomes, step=100, settings=None, **fields):
    """An evaluation of several tasks: task -> outcomes."""
    rows = [replace(row, task=task) for task, ends in outcomes.items() for row in make_evaluation(ends, step).rows]
    own = {"tasks": {task: SETTINGS for task in outcomes}, "action_chunk": 8, "policy_seed": 0, **(settings or {})}
    return make_evaluation("s", step, rows=tuple(rows), settings=own, **fields)


def test_the_rate_is_the_mean_of_the_tasks_and_each_has_its_own():
    evaluation = of_tasks({"b/reach": "s" * 18 + "tt", "a/push": "s" * 4 + "t" * 16})
    assert evaluation.tasks == TASKS
    assert evaluation.success == macro_average([(18, 20), (4, 20)])
    found = compare([evaluation])
    assert (found.tasks, found.success_title) == (TASKS, "macro average over 2 tasks")
    assert [(row.task, row.n, [rate.rate for rate in row.rates]) for row in task_rates(found)] == [
        ("b/reach", 20, [0.9]),
        ("a/push", 20, [0.2]),
    ]
    metrics = evaluation_metrics(evaluation.rows, evaluation.settings)
    assert metrics["eval/success_once"] == pytest.approx(0.55)
    assert metrics["eval/task/a/push/success_once"] == 0.2
    own = metrics["eval/task/a/push/success_low"], metrics["eval/task/a/push/success_high"]
    assert own == wilson_interval(4, 20)
    assert metrics["eval/episodes"] == 40


def test_a_checkpoint_of_one_task_is_shown_as_before(evaluation):
    found = compare([evaluation("sst", 1), evaluation("ttt", 2)])
    assert (found.tasks, found.task_pairs, found.success_title) == ((), (), "success")
    assert not any(key.startswith("eval/task") for key in evaluation_metrics(found.standings[0].evaluation.rows, {}))
    assert "task" not in episode_tables(found)[0][0]
    assert "| rank | checkpoint | success | 95 % Wilson interval |" in leaderboard_markdown(found)
    assert 'id="tasks"' not in render(found, "title")


outcome = st.text("st", min_size=6, max_size=6)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.fixed_dictionaries({"b/reach": outcome, "a/push": outcome}), min_size=2, max_size=4))
def test_pairs_are_tested_inside_each_task_and_corrected_together(checkpoints):
    found = compare([of_tasks(each, step) for step, each in enumerate(checkpoints, start=1)])
    ordered = [checkpoints[standing.evaluation.step - 1] for standing in found.standings]
    expected = {}
    for task, (i, j) in itertools.product(TASKS, itertools.combinations(range(len(ordered)), 2)):
        both = list(zip(ordered[i][task], ordered[j][task], strict=True))
        wins, losses = both.count(("s", "t")), both.count(("t", "s"))
        expected[task, i, j] = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert {(pair.task, pair.first, pair.second) for pair in found.task_pairs} == expected.keys()
    # Holm by its definition: the k-th smallest is compared with alpha / (m - k + 1), until one fails.
    for pair in found.task_pairs:
        p_value = expected[pair.task, pair.first, pair.second]
        assert pair.p_value == pytest.approx(p_value)
        smaller = [(len(expected) - k) * p for k, p in enumerate(sorted(expected.values())) if p <= p_value + 1e-12]
        assert pair.adjusted == pytest.approx(min(1.0, max(smaller)))
    # The pooled pair counts every seed of every task once.
    for pair in found.pairs:
        assert pair.counts.n == 12
        own = [each for each in found.task_pairs if (each.first, each.second) == (pair.first, pair.second)]
        assert sum(each.counts.wins for each in own) == pair.counts.wins


def test_a_gain_in_one_task_is_said_with_the_task():
    good, bad = {"b/reach": "s" * 20, "a/push": "t" * 20}, {"b/reach": "t" * 20, "a/push": "t" * 20}
    found = compare([of_tasks(good, 2), of_tasks(bad, 1)])
    (note,) = task_notes(found)
    assert "step-2 is better than step-1 in b/reach (20 vs 0 seeds won" in note
    assert "Holm over 2 tests" in note
    assert [(row["task"], row["better"]) for row in task_pair_table(found)] == [("b/reach", "step-2"), ("a/push", None)]


def test_page_and_markdown_show_the_tasks():
    found = compare(
        [of_tasks({"b/reach": "sst", "a/push": "ttt"}, 1), of_tasks({"b/reach": "sss", "a/push": "tts"}, 2)]
    )
    page, text = render(found, "title"), leaderboard_markdown(found)
    for task in TASKS:
        assert f'<td class="name">{task}</td>' in page
        assert f"| {task} |" in text
    assert "macro average over 2 tasks" in page
    assert "macro average over 2 tasks" in text
    (table,) = episode_tables(found)
    assert [(row["task"], row["seed"]) for row in table] == [
        (task, 5000 + n) for task in sorted(TASKS) for n in range(3)
    ]


def test_evaluations_of_some_of_the_tasks_are_paired_in_these():
    whole = of_tasks({"b/reach": "sst", "a/push": "ttt"}, 1)
    other = {"sweep": "e" * 32, "sweep_name": "other"}
    found = compare([whole, of_tasks({"a/push": "sss"}, 2, **other)])
    assert found.unpaired_reasons == ()
    assert found.pairs[0].counts.n == 3


def test_one_task_and_several_are_not_paired(evaluation):
    other = {"sweep": "e" * 32, "sweep_name": "other"}
    found = compare([of_tasks({"b/reach": "sst", "a/push": "ttt"}, 1), evaluation("sst", 2, **other)])
    assert "differ in their tasks (one against b/reach, a/push)" in " ".join(found.unpaired_reasons)


def test_other_settings_of_one_task_are_named_with_it():
    ends = {"b/reach": "sst", "a/push": "ttt"}
    changed = {"tasks": {"b/reach": SETTINGS, "a/push": SETTINGS | {"action_chunk": 4}}}
    other = {"sweep": "e" * 32, "sweep_name": "other"}
    found = compare([of_tasks(ends, 1), of_tasks(ends, 2, changed, **other)])
    (reason,) = found.unpaired_reasons
    assert "of a/push" in reason
    assert "of b/reach" not in reason


def test_a_row_survives_the_table():
    for evaluation in (of_tasks({"b/reach": "s"}), make_evaluation("s")):
        (row,) = evaluation.rows
        assert episode_row(table_row(row)) == row
        assert ("task" in table_row(row)) == bool(row.task)
