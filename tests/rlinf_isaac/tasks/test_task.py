from __future__ import annotations

from dataclasses import replace

import pytest

from rlinf_isaac.config.task import stack_cube
from rlinf_isaac.tasks.task import Environment, differences

TASK = stack_cube("stack2")


def with_env(**values):
    assert TASK.env is not None
    return replace(TASK, env=replace(TASK.env, **values))


def test_the_digest_does_not_depend_on_the_machine():
    assert TASK.digest == with_env(python="/one/python", directory="/there").digest
    assert not differences(TASK, with_env(python="/one/python", directory="/there"))


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (replace(TASK, control_hz=10), "control_hz"),
        (replace(TASK, prompts=("Stack.",)), "prompts"),
        (replace(TASK, cameras=dict(list(TASK.cameras.items())[:1])), "cameras.left_wrist_0_rgb.dataset"),
        (replace(TASK, action=replace(TASK.action, delta="6,-1")), "action.delta"),
        (replace(TASK, state=replace(TASK.state, dims=9)), "state.dims"),
        (with_env(success="reward>=1"), "env.success"),
        (with_env(dwell=3), "env.dwell"),
        (replace(TASK, env=None), "env.kind"),
    ],
)
def test_a_difference_is_named_by_its_field(other, field):
    assert other.digest != TASK.digest
    assert field in [name for name, _, _ in differences(TASK, other)]


def test_names_of_dims_are_compared_where_both_have_them():
    unnamed = replace(TASK, state=replace(TASK.state, names=None))
    assert differences(TASK, unnamed) == []
    renamed = replace(TASK, state=replace(TASK.state, names=tuple("abcdefgh")))
    assert [name for name, _, _ in differences(TASK, renamed)] == ["state.names"]


def test_an_episode_has_the_prompt_that_its_seed_picks():
    task = replace(TASK, prompts=("one", "two"))
    assert [task.prompt(seed) for seed in range(4)] == ["one", "two", "one", "two"]
    assert replace(TASK, prompts=None).prompt(3) == ""


def test_failures_are_outcomes():
    assert TASK.failures == ("drop",)
    assert replace(TASK, env=Environment("gymnasium", failure="info.fell")).failures == ("failure",)
    assert replace(TASK, env=Environment("gymnasium")).failures == ()
    assert replace(TASK, env=None).failures == ()
