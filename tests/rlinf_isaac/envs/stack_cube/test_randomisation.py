from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.envs.stack_cube.contract import DEFAULT_JOINT_POS
from rlinf_isaac.envs.stack_cube.randomisation import sample_reset

WIDE = np.tile([-10.0, 10.0], (7, 1))


@given(st.integers(0, 2**63), st.sampled_from([2, 3]))
@settings(deadline=None)
def test_resets_are_within_upstreams_ranges(seed: int, cubes: int) -> None:
    start = sample_reset(seed, cubes, WIDE)
    assert ((start.cube_xy >= [0.4, -0.1]) & (start.cube_xy <= [0.6, 0.1])).all()
    assert (np.abs(start.cube_yaw) <= 1).all()
    for a, b in itertools.combinations(start.cube_xy, 2):
        assert np.linalg.norm(a - b) > 0.1
    assert start.joint_pos[7:].tolist() == [0.04, 0.04]


@given(st.integers(0, 2**63))
@settings(deadline=None)
def test_a_reset_is_a_function_of_its_seed(seed: int) -> None:
    first, again, other = (sample_reset(s, 3, WIDE) for s in (seed, seed, seed + 1))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert (first.joint_pos[:7] != other.joint_pos[:7]).all()


def test_joint_noise_has_upstreams_spread() -> None:
    noise = np.array([sample_reset(seed, 2, WIDE).joint_pos[:7] for seed in range(500)]) - DEFAULT_JOINT_POS[:7]
    assert abs(noise.std() - 0.02) < 0.001
    assert np.abs(noise.mean(axis=0)).max() < 0.004


def test_joint_limits_hold() -> None:
    narrow = np.stack([np.array(DEFAULT_JOINT_POS[:7]) - 0.001, np.array(DEFAULT_JOINT_POS[:7]) + 0.001], axis=-1)
    for seed in range(20):
        joints = sample_reset(seed, 2, narrow).joint_pos[:7]
        assert ((joints >= narrow[:, 0]) & (joints <= narrow[:, 1])).all()
