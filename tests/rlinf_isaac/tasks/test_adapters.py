"""Robots whose numbers a base model knows in another form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.tasks.adapters import ADAPTERS, Adapter, find_adapter
from rlinf_isaac.tasks.read import from_dict, read_task
from rlinf_isaac.tasks.task import differences

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 4), st.just(14)), elements=st.floats(-3, 3))
NOTHING = Adapter(*[np.array] * 3)


@given(ROWS, st.sampled_from(sorted(ADAPTERS)))
def test_there_and_back_is_the_identity(actions, name):
    adapter = ADAPTERS[name]
    before = actions.copy()
    np.testing.assert_allclose(adapter.to_robot(adapter.actions(actions)), actions, atol=1e-12)
    np.testing.assert_allclose(adapter.actions(adapter.to_robot(actions)), actions, atol=1e-12)
    np.testing.assert_array_equal(actions, before)


@given(ROWS)
def test_each_row_by_itself_and_in_its_own_dtype(rows):
    adapter = ADAPTERS["aloha"]
    for change in (adapter.state, adapter.actions, adapter.to_robot):
        np.testing.assert_array_equal(change(rows)[0, 0], change(rows[0, 0]))
        assert change(rows.astype(np.float32)).dtype == np.float32
        np.testing.assert_allclose(change(rows.astype(np.float32)), change(rows), atol=1e-5)


def test_aloha_by_hand():
    """Values that were worked out apart from this code."""
    adapter = find_adapter("aloha")
    assert adapter is not None
    state = adapter.state(np.arange(14.0) / 14)
    np.testing.assert_allclose(state[[0, 1, 2, 3, 7, 8, 9, 10]] * 14, [0, -1, -2, 3, 7, -8, -9, 10])
    # A gripper that is closed, 0.01844 m: asin((0.022^2 + 0.01844^2 - 0.036^2) / (2 * 0.022 * 0.01844)) = -0.62081 rad.
    closed = adapter.state(np.zeros(14))[6]
    assert closed == pytest.approx((-0.62081 - 0.5476) / (1.6296 - 0.5476), abs=1e-4)
    assert adapter.to_robot(np.zeros(14))[13] == pytest.approx((0.5476 + 0.6213) / (1.4910 + 0.6213))


def test_names_that_are_no_adapter():
    assert find_adapter(None) is None
    assert find_adapter(f"{__name__}:NOTHING") is NOTHING
    for name in ("alhoa", "numpy:array", "no_such_package:x", "numpy:no_such_thing", ":x"):
        with pytest.raises(InvalidJob, match="no-adapter"):
            find_adapter(name)


TEXT = """
name: fold
prompt: Fold it.
control_hz: 50
cameras: {base_0_rgb: observation.images.top}
state: {dims: 14}
action: {dims: 14, delta: "6,-1,6,-1"}
adapt: aloha
"""


def read(tmp_path, text):
    file = tmp_path / "task.yaml"
    file.write_text(text)
    return read_task(file)


def refusal(tmp_path, text) -> str:
    with pytest.raises(InvalidJob) as refused:
        read(tmp_path, text)
    return str(refused.value)


def test_an_adapter_is_part_of_the_task(tmp_path):
    task = read(tmp_path, TEXT)
    assert task.adapt == "aloha"
    assert differences(task, replace(task, adapt=None)) == [("adapt", "aloha", None)]
    assert "no-adapter" in refusal(tmp_path, TEXT.replace("aloha", "alhoa"))
    assert "state.dims is 7, adapt: aloha is for 14" in refusal(
        tmp_path, TEXT.replace("state: {dims: 14", "state: {dims: 7")
    )


def test_an_environment_needs_no_adapter_of_another_package(tmp_path):
    """Its own interpreter reads the dict, and may not have that package."""
    values = read(tmp_path, TEXT).as_dict() | {"adapt": "package_of_the_lab:robot"}
    assert from_dict(values, "here").adapt == "package_of_the_lab:robot"
    assert "no-adapter" in refusal(tmp_path, TEXT.replace("aloha", "package_of_the_lab:robot"))


@pytest.mark.parity
def test_openpi_gives_the_same():
    policy = pytest.importorskip("openpi.policies.aloha_policy")
    random = np.random.default_rng(0)
    state, actions = random.uniform(-1.5, 1.5, 14), random.uniform(-1.5, 1.5, (50, 14))
    state[[6, 13]] = random.uniform(0, 1, 2)
    adapter = ADAPTERS["aloha"]
    example = policy.make_aloha_example() | {"state": state.copy(), "actions": actions.copy()}
    theirs = policy.AlohaInputs(adapt_to_pi=True)(example)
    np.testing.assert_allclose(adapter.state(state), theirs["state"], atol=1e-12)
    np.testing.assert_allclose(adapter.actions(actions), theirs["actions"], atol=1e-12)
    back = policy.AlohaOutputs(adapt_to_pi=True)({"actions": theirs["actions"]})["actions"]
    np.testing.assert_allclose(adapter.to_robot(theirs["actions"]), back, atol=1e-12)
