"""What counts as an evaluation that a candidate could have been picked from, whatever it is called."""

from __future__ import annotations

import random
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_project.promotion import looks
from mlflow_project.promotion.gate import level
from mlflow_project.promotion.looks import Family, Look, Reign, family_of


def sha256(step: int) -> str:
    return f"{step:064x}"


def look(
    step: int, time: int, rows: float = 0.5, *, first: int = 5000, sweep: str = "a", planned: int | None = None
) -> Look:
    """20 episodes of one checkpoint."""
    return Look(sha256(step), range(first, first + 20), (rows,), time, f"{step}-{time}", sweep, planned)


def family(step: int, looks: list[Look], **reign: Any) -> Family:
    """Of the checkpoint of this step."""
    return family_of(sha256(step), looks, **reign)


def runs(found: Family) -> list[str]:
    return [each.run for each in found.looks]


def test_every_checkpoint_of_the_store_counts_and_the_same_rows_count_once():
    looks = [look(1, 10), look(2, 11), look(3, 12), look(3, 50, sweep="b")]
    assert runs(family(3, looks)) == ["1-10", "2-11", "3-12"]


def test_fresh_seeds_and_other_rows_on_the_same_seeds_are_further_looks():
    looks = [look(1, 10), look(1, 11, first=6000), look(1, 12, rows=0.6)]
    assert len(family(1, looks).looks) == 3


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 60), st.sampled_from([0.3, 0.5])), min_size=1, max_size=12))
def test_neither_repetitions_nor_their_order_change_the_count(made):
    looks = [look(step, time, rows) for step, time, rows in made]
    again = [look(step, 100 + time, rows, sweep="again") for step, time, rows in made]
    shuffled = random.Random(0).sample([*looks, *again], k=2 * len(looks))
    count = len({(step, rows) for step, _, rows in made})
    for step in {step for step, _, _ in made}:
        assert len(family(step, looks).looks) == count
        assert len(family(step, shuffled).looks) == count


CHAMPION = 9
REIGN = {"champion": sha256(CHAMPION), "reigns": (Reign(200, "2"), Reign(100, "1"))}
OLD = [look(1, 10), look(2, 20), look(3, 110), look(4, 120)]
"""Of the time without a champion, and of the reign of version 1."""


def test_the_count_begins_with_the_reign_and_leaves_the_champion_out():
    looks = [*OLD, look(CHAMPION, 210), look(4, 215), look(5, 220)]  # 4 once more: the same rows as before
    found = family(5, looks, **REIGN)
    assert (runs(found), found.since) == (["5-220"], Reign(200, "2"))


def test_who_was_seen_before_the_reign_was_picked_from_what_was_there_then():
    looks = [*OLD, look(4, 215), look(5, 220)]
    found = family(4, looks, **REIGN)
    assert (runs(found), found.since) == (["3-110", "4-120", "5-220"], Reign(100, "1"))
    found = family(2, looks, **REIGN)
    assert (len(found.looks), found.since) == (5, None)


def test_fresh_seeds_change_nothing_of_that_but_add_one():
    found = family(4, [*OLD, look(4, 230, first=6000)], **REIGN)
    assert (runs(found), found.since) == (["3-110", "4-120", "4-230"], Reign(100, "1"))


@pytest.mark.parametrize(
    ("ancestors", "since"),
    [((), "2"), ((4,), "1"), ((7, 4), "1"), ((4, 1), None), ((CHAMPION, 4), "2"), ((4, CHAMPION, 1), "1")],
)
def test_luck_is_inherited_but_not_through_the_champion(ancestors, since):
    found = family(5, [*OLD, look(5, 220)], ancestors=map(sha256, ancestors), **REIGN)
    assert (found.since and found.since.version) == since


@pytest.mark.parametrize(("first", "since"), [(5000, "1"), (5019, "1"), (5020, "2"), (4981, "1"), (4980, "2")])
def test_luck_is_inherited_on_the_same_seeds_alone(first, since):
    found = family(5, [*OLD, look(5, 220, first=first)], ancestors=[sha256(4)], **REIGN)
    assert (found.since and found.since.version) == since


def test_an_evaluation_that_the_store_does_not_show_counts_all_of_it():
    assert len(family(8, OLD, **REIGN).looks) == len(OLD)


A, B = {"sweep": "a", "planned": 4}, {"sweep": "b", "planned": 2}


@pytest.mark.parametrize(
    ("looks", "size", "newest"),
    [
        ([look(1, 10, **A)], 4, 4),  # counted in full from the first on
        ([look(1, 10, **A), look(2, 11, **A), look(3, 12, **A), look(4, 13, **A)], 4, 4),
        ([look(1, 10, **A), look(2, 11, **A), look(5, 12, **B)], 4, 2),  # 2 of what is left of a are no chances yet
        ([look(1, 10, **A), look(2, 11, **A), look(5, 12, **B), look(3, 13, **A)], 5, 2),
        ([look(1, 10, **A), look(5, 11, **B), look(1, 12, **B)], 2, 1),  # 1 again is no further look
        ([look(1, 10, **A), look(5, 11, **B), look(CHAMPION, 12, **B)], 2, 1),
        ([look(1, 10), look(2, 11)], 2, 1),  # nobody recorded the plan
        ([look(1, 10, **B), look(2, 11, **B), look(3, 12, **B)], 3, 3),  # more than planned
        ([look(1, 10, **B), look(2, 11)], 2, 1),
    ],
)
def test_a_sweep_counts_as_it_was_planned(looks, size, newest):
    found = family(1, looks, champion=sha256(CHAMPION))
    assert (found.size, found.newest_sweep) == (size, newest)


plans = st.lists(st.integers(1, 5), min_size=1, max_size=5)


@given(plans, st.data())
def test_whenever_one_looks_no_more_than_alpha_is_spent(planned, data):
    """Sweeps that run at the same time, of which some are never finished: every evaluation at its largest level."""
    ends = data.draw(st.permutations([sweep for sweep, number in enumerate(planned) for _ in range(number)]))
    ends = ends[: data.draw(st.integers(1, len(ends)))]
    looks = [look(time, time, sweep=str(sweep), planned=planned[sweep]) for time, sweep in enumerate(ends)]
    largest: dict[str, Fraction] = {}
    for now in range(1, len(looks) + 1):
        found = family(0, looks[:now])
        for each in found.looks:
            asked = level(Fraction(1), found.size, found.newest_sweep)
            largest[each.run] = max(largest.get(each.run, Fraction(0)), asked)
    assert sum(largest.values()) < 1


@pytest.mark.parametrize(
    ("played", "rates", "counts"),
    [
        ("table", ["lab/reach", "push"], True),  # another name for the same tasks
        ("push,pull", ["push", "pull"], True),
        ("table", ["pull"], False),
        ("lab/reach", [], True),
        ("shelf", [], False),
    ],
)
def test_a_look_at_any_of_the_tasks_counts_whatever_the_suite_is_called(played, rates, counts):
    metrics = {f"eval/task/{name}/success_{end}": 0.5 for name in rates for end in ("once", "low")}
    data = SimpleNamespace(params={"cfg/env/task": played}, metrics=metrics)
    assert looks._is_about(SimpleNamespace(data=data), {"desk", "lab/reach", "push"}) == counts
