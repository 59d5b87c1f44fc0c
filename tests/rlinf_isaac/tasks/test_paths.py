from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from rlinf_isaac.tasks.paths import axis_angle, leaves, read_path, wrong_path

angles = st.floats(-3.1, 3.1)
OBSERVATION = {"pixels": {"top": np.zeros((2, 4, 4, 3), np.uint8)}, "agent_pos": np.arange(8.0).reshape(2, 4)}


def test_a_path_steps_into_dicts_and_takes_slices():
    assert read_path(OBSERVATION, "pixels/top").shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(read_path(OBSERVATION, "agent_pos[1:3]"), [[1, 2], [5, 6]])
    np.testing.assert_array_equal(read_path(OBSERVATION, "agent_pos[:2]"), [[0, 1], [4, 5]])
    assert read_path(OBSERVATION, "axis_angle(agent_pos)[0:2]").shape == (2, 2)
    assert list(leaves(OBSERVATION)) == ["pixels/top", "agent_pos"]


def test_what_is_missing_is_named_with_what_is_there():
    with pytest.raises(KeyError, match="no 'pixels/wrist'; it has agent_pos, pixels/top"):
        read_path(OBSERVATION, "pixels/wrist")


@pytest.mark.parametrize("path", ["a[1]", "f(a", "angle(a)", "a[1:2", ""])
def test_what_is_no_path_is_refused(path):
    assert wrong_path(path)


@pytest.mark.parametrize("path", ["a", "a/b[0:7]", "axis_angle(a/q)", "axis_angle_xyzw(q)", "a[3:]"])
def test_what_is_a_path_is_taken(path):
    assert wrong_path(path) is None


def test_the_order_xyzw_is_told_apart():
    rotation = Rotation.from_euler("xyz", [0.1, -0.4, 0.7])
    np.testing.assert_allclose(
        read_path({"q": rotation.as_quat()[None]}, "axis_angle_xyzw(q)")[0], rotation.as_rotvec(), atol=1e-9
    )


@given(st.tuples(angles, angles, angles))
@settings(deadline=None)
def test_axis_angle_is_the_rotation(euler: tuple[float, float, float]) -> None:
    rotation = Rotation.from_euler("xyz", euler)
    x, y, z, w = rotation.as_quat()
    for sign in (1, -1):
        vector = axis_angle(sign * np.array([w, x, y, z]))
        assert np.linalg.norm(vector) <= 2 * np.pi + 1e-9
        np.testing.assert_allclose(Rotation.from_rotvec(vector).as_matrix(), rotation.as_matrix(), atol=1e-6)


def test_axis_angle_is_continuous_where_the_hand_points_down() -> None:
    w = np.linspace(-0.05, 0.05, 101)
    vectors = axis_angle(np.stack([w, np.sqrt(1 - w**2), 0 * w, 0 * w], axis=-1))
    assert np.abs(np.diff(vectors, axis=0)).max() < 0.01
    assert vectors[:, 0].min() < np.pi < vectors[:, 0].max()


def test_axis_angle_of_the_identity_is_zero() -> None:
    np.testing.assert_array_equal(axis_angle([[1, 0, 0, 0], [-1, 0, 0, 0]]), np.zeros((2, 3)))
