from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import pytest

from rlinf_isaac.config import flatten, load_config
from rlinf_isaac.config.rules import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Rule, one_of, out_of_range, rules_of
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.envs.stack_cube.backends import BACKENDS
from rlinf_isaac.envs.stack_cube.contract import STATE_LAYOUTS
from rlinf_isaac.tasks.task import KINDS

FREE = {
    "preset",
    "policy.tokenizer",
    "policy.delta_actions",
    "policy.asset_id",
    "compute.device",
    "env.renderer",
    "env.task",
}
"""Texts that are no choice by themselves: names, files, notations, and what depends on another value."""


@dataclass
class Inner:
    share: Annotated[float, SHARE] = 0.5
    name: str = "any"


@dataclass
class Outer:
    count: Annotated[int, POSITIVE] = 1
    inner: Inner = field(default_factory=Inner)


def test_rules_are_found_with_their_keys_in_sections_within_sections():
    assert dict(rules_of(Outer)) == {"count": POSITIVE, "inner.share": SHARE}


def test_a_value_out_of_its_range_is_named_with_what_it_must_be():
    values = {"count": 0, "inner.share": 0.5, "inner.name": ""}
    (problem,) = out_of_range(Outer, values)
    assert (problem.code, problem.cause) == ("bad-value", "count is 0")
    assert problem.cure == "use a value that is greater than 0"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_in_range(value):
    (problem,) = out_of_range(Outer, {"count": 1, "inner.share": value, "inner.name": ""})
    assert problem.cause == f"inner.share is {value}"


@pytest.mark.parametrize(
    ("rule", "within", "without"),
    [
        (POSITIVE, [1e-9, 1], [0, -1]),
        (NOT_NEGATIVE, [0, 1], [-1e-9]),
        (SHARE, [0, 0.5, 1], [-0.1, 1.1]),
        (BELOW_ONE, [0, 0.999], [-0.1, 1]),
        (one_of("a", "b"), ["a", "b"], ["", "c", "A"]),
    ],
)
def test_what_a_rule_admits(rule: Rule, within, without):
    assert all(rule.holds(each) for each in within)
    assert not any(rule.holds(each) for each in without)


def test_every_number_and_every_choice_of_a_job_has_a_rule():
    values = flatten(load_config("tiny"))
    free = {key for key, value in values.items() if isinstance(value, bool)} | {"sft.fresh", "sft.mix"} | FREE
    assert {key for key, _ in rules_of(JobConfig)} == set(values) - free


def test_the_choices_are_those_of_what_is_there_to_choose():
    """The config cannot import the environments; a name that is added there is to be added here."""
    words = {key: rule.words.removeprefix("one of ").split(", ") for key, rule in rules_of(JobConfig)}
    assert words["env.backend"] == [*dict.fromkeys([*BACKENDS, *KINDS[1:]]), "none"]
    assert words["policy.state_layout"] == list(STATE_LAYOUTS)
