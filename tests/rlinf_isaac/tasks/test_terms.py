from __future__ import annotations

import pytest

from rlinf_isaac.tasks.terms import holds, term_name, wrong_term

INFO = {
    "term/success": True,
    "term/dropped": False,
    "is_success": True,
    "distance": 0.01,
    "near object": 0.0,
    "robot/fell": 1.0,
}


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("info.is_success", True),
        ("info.distance<=0.02", True),
        ("info.distance < 1e-3", False),
        ("info.near object", False),
        ("info.robot/fell>=1", True),
        ("term:success", True),
        ("term:dropped", False),
        ("term:absent", None),
        ("info.absent", None),
        ("info.absent>=1", None),
        ("reward>=1", False),
        ("reward > -1.5", True),
        ("terminated", True),
        ("truncated", False),
    ],
)
def test_terms_hold_by_what_the_environment_says(term, expected):
    assert wrong_term(term) is None
    assert holds(term, 0.5, True, False, INFO) is expected


@pytest.mark.parametrize(
    "term", ["", "success", "info.", "reward=1", "reward>=", "terminated>", "info.a>=b", "len(x)", "term:", "term:a b"]
)
def test_what_is_no_term_is_refused(term):
    assert wrong_term(term)


@pytest.mark.parametrize(
    ("term", "name"),
    [("info.goal/distance <= 0.02", "info.goal/distance"), ("term:success", "term:success"), ("reward>1", "reward")],
)
def test_the_name_of_a_term_is_what_it_reads(term, name):
    assert term_name(term) == name
