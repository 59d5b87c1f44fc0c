from __future__ import annotations

import pytest
from support import small_config

from rlinf_isaac.config.keep import Keep, parse_keep
from rlinf_isaac.preflight.config import check_config

STEPS = (100, 200, 300, 400, 500)
SCORES = {100: 0.9, 200: 0.5, 300: 0.9, 500: 0.1}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("all", {100, 200, 300, 400, 500}),
        ("last:2", {400, 500}),
        ("best:1", {300}),  # of equal ones the newest
        ("best:9", {100, 200, 300, 500}),  # what was not measured is not among the best
        ("every:200", {200, 400}),
        ("last:1,best:1 every:400", {300, 400, 500}),
    ],
)
def test_what_stays(text, kept):
    assert set(parse_keep(text).kept(STEPS, SCORES)) == kept


def test_each_has_its_reasons():
    assert Keep(last=1, every=500).kept(STEPS, {}) == {500: "last:1, every:500"}


@pytest.mark.parametrize(
    "text", ["", "none", "last", "last:0", "last:-1", "last:1,last:2", "newest:1", "last:1.5", "ALL"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="last:2,best:1,every:10000"):
        parse_keep(text)


def test_best_needs_a_measurement():
    def codes(*overrides: str) -> list[str]:
        form = "rl" if overrides[0].startswith("rl.") else "sft"
        return [problem.code for problem in check_config(small_config(overrides), form, overrides)]

    assert codes("sft.keep='best:1'", "sft.val_episodes=0") == ["keep-unmeasured"]
    assert codes("sft.keep='best:1'", "sft.val_episodes=1") == []
    assert codes("rl.keep='last:1,best:1'", "rl.eval_interval=0") == ["keep-unmeasured"]
    assert codes("sft.keep='last:x'") == ["bad-value"]
