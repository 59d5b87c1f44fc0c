from __future__ import annotations

import pytest

from rlinf_isaac.tasks.terms import holds, wrong_term

INFO = {"is_success": True, "distance": 0.01, "near object": 0.0, "robot/fell": 1.0}


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("info.is_success", True),
        ("info.distance<=0.02", True),
        ("info.distance < 1e-3", False),
        ("info.near object", False),
        ("info.robot/fell>=1", True),
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


@pytest.mark.parametrize("term", ["", "success", "info.", "reward=1", "reward>=", "terminated>", "info.a>=b", "len(x)"])
def test_what_is_no_term_is_refused(term):
    assert wrong_term(term)
