from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.description import foreign_config
from rlinf_isaac.checkpoint.facts import (
    FACTS,
    assume,
    assumed,
    not_known,
    parse_assumptions,
    remarks,
    spell,
)
from rlinf_isaac.checkpoint.trained_with import mismatches, unknown_problem
from rlinf_isaac.envs.stack_cube.contract import ACTION_NAMES, CONTROL_HZ, TASKS, state_names
from rlinf_isaac.ground.errors import InvalidJob

OF_PI0 = [name for name in FACTS if name != "discrete_state_input"]


@pytest.fixture(scope="module")
def bundle(small_checkpoints):
    return read_bundle(small_checkpoints / "2")


@pytest.fixture(scope="module")
def foreign(bundle):
    """The same weights, with nothing said of them."""
    return replace(bundle, config=foreign_config(small_config()) | {"source": {"files": {}}})


def codes(problems):
    return [problem.code for problem in problems]


def test_our_own_training_knows_everything(bundle):
    assert not_known(bundle) == ()
    assert unknown_problem(bundle, small_config()) is None
    assert remarks(bundle) == ()


def test_what_is_not_known_is_asked_for_once_and_its_cure_works_as_it_stands(foreign):
    assert list(not_known(foreign)) == OF_PI0
    found = mismatches(foreign, small_config())
    assert codes(found) == ["not-known"]
    assert all(f"\n  {name}:" in found[0].cause for name in OF_PI0)
    option = re.search(r'--assume "(.+?)"; name', found[0].cure)
    assert option is not None
    (typed,) = shlex.split(f'"{option[1]}"')
    for text in (typed, "all"):
        told = assume(foreign, parse_assumptions(text))
        assert not_known(told) == ()
        assert mismatches(told, small_config()) == []
        assert list(assumed(told)) == OF_PI0
        assert told.config["prompts"] == {"0": TASKS["stack2"].prompt}
        assert assumed(told)["state"] == state_names("proprio+cubes", 2)
        lines = [*(f"assumed: {name}=" for name in OF_PI0), "not known: environment"]
        assert all(line.startswith(begin) for begin, line in zip(lines, remarks(told), strict=True))
    assert list(not_known(foreign)) == OF_PI0  # the bundle itself is as it was


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("prompt='Pile the blocks.'", "prompt-mismatch"),
        (f"control_hz={CONTROL_HZ + 10}", "control-rate-mismatch"),
        ("state=proprio", "state-layout-mismatch"),
        (f"actions=[{','.join((ACTION_NAMES[-1], *ACTION_NAMES[:-1]))}]", "action-names-mismatch"),
    ],
)
def test_an_assumption_counts_like_a_record(foreign, text, code):
    told = assume(foreign, parse_assumptions(f"all,{text}"))
    (problem,) = mismatches(told, small_config())
    assert problem.code == code
    assert "as is assumed" in problem.cause


def test_an_assumed_value_of_the_job_is_what_runs(foreign):
    told = assume(foreign, parse_assumptions("all,action_horizon=6,action_chunk=4,norm=quantile"))
    assert (told.job["model"]["action_horizon"], told.job["policy"]["action_chunk"]) == (6, 4)
    assert told.job["policy"]["norm"] == "quantile"
    assert foreign.job["model"]["action_horizon"] == 8


def test_a_part_of_it_leaves_the_rest_unknown(foreign):
    told = assume(foreign, parse_assumptions("control_hz=20"))
    assert list(not_known(told)) == [name for name in OF_PI0 if name != "control_hz"]
    again = assume(told, parse_assumptions("all"))
    assert not_known(again) == ()
    assert list(assumed(again)) == ["control_hz", *(name for name in OF_PI0 if name != "control_hz")]


def test_what_a_checkpoint_says_itself_cannot_be_assumed(bundle, foreign):
    for told, text in ((bundle, "prompt='Pile.'"), (assume(foreign, {"norm": "zscore"}), "norm=quantile")):
        with pytest.raises(InvalidJob) as error:
            assume(told, parse_assumptions(text))
        assert codes(error.value.problems) == ["needless-assumption"]
    assert assume(bundle, parse_assumptions("all")).config["prompts"] == bundle.config["prompts"]


@pytest.mark.parametrize(
    "text",
    [
        "prompt",
        "colour=blue",
        "control_hz=fast",
        "control_hz=0",
        "state=[1,2]",
        "actions=dx",
        "action_horizon=1.5",
        "discrete_state_input=maybe",
        "prompt=3",
        "prompt={a",
    ],
)
def test_words_that_say_nothing_are_refused(text):
    with pytest.raises(InvalidJob) as error:
        parse_assumptions(text)
    assert set(codes(error.value.problems)) == {"bad-assumption"}


def test_all_words_are_judged_at_once():
    with pytest.raises(InvalidJob) as error:
        parse_assumptions("colour=blue,control_hz=fast")
    assert len(error.value.problems) == 2
    assert parse_assumptions("none") == {}


def test_a_preset_that_an_earlier_release_wrote_down_as_the_training_is_not_known(bundle):
    invented = {"source": {"kind": "weights", "files": {}}, **bundle.config}
    manifest = replace(bundle.manifest, lineage={**bundle.lineage, "dataset": None})
    assert list(not_known(replace(bundle, config=invented, manifest=manifest))) == OF_PI0
    assert not_known(replace(bundle, config=invented)) == ()  # its dataset said so


NAMES = st.lists(st.text("abcxyz_123", min_size=1, max_size=8).filter(str.isidentifier), min_size=1, max_size=9)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1).filter(
            str.strip
        ),
        "control_hz": st.integers(1, 1000),
        "state": NAMES,
        "actions": NAMES,
        "action_horizon": st.integers(1, 500),
        "discrete_state_input": st.booleans(),
    },
)


@given(VALUES)
def test_what_is_spelt_is_read_again(values):
    text = ",".join(f"{name}={spell(value, quoted=True)}" for name, value in values.items())
    assert parse_assumptions(text or "none") == values
