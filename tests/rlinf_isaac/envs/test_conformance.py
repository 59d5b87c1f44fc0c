"""What every backend of the stack-cube contract does alike.

On MuJoCo in the default suite; on the real IsaacLab where one is installed (`rlinf-isaac isaaclab setup --venv PATH`):

    ISAACLAB_PYTHON=PATH/bin/python python -m pytest -m isaaclab
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import EnvConfig, JobConfig
from rlinf_isaac.envs import make_env
from rlinf_isaac.envs.conformance.suite import CHECKS, Result, run_suite
from rlinf_isaac.envs.isaaclab import kinematics
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.randomisation import sample_reset
from rlinf_isaac.jobs.conformance import ConformanceJob, bench_of

SIZE, STEPS = 32, 30
TASK = contract.TASKS["stack3"]
HOLD = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
Row = dict[str, np.ndarray]


@pytest.fixture(
    scope="module",
    params=["mujoco", pytest.param("isaaclab", marks=pytest.mark.isaaclab)],
)
def settings(request) -> EnvConfig:
    if request.param == "isaaclab":
        request.getfixturevalue("env_python")
    renderer = "rays" if request.param == "mujoco" else "auto"
    return EnvConfig(request.param, "stack3", image_size=SIZE, renderer=renderer)


@pytest.fixture(scope="module")
def env(settings) -> Iterator[Any]:
    env = make_env(JobConfig(env=replace(settings, max_episode_steps=STEPS)), 2)
    yield env
    env.close()


@pytest.fixture(scope="module")
def results(settings) -> dict[str, Result]:
    """What `doctor env` says of it: the checks that are the same for every task."""
    bench = bench_of(ConformanceJob(replace(load_config("tiny"), env=settings), None, None))
    return {each.name: each for each in run_suite(bench)}


def random_actions(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (2, steps, 7)).astype(np.float32)


def row(observation: dict[str, dict[str, np.ndarray]], i: int) -> Row:
    return {key: value[i] for group in observation.values() for key, value in group.items()}


def assert_same(one: Row, other: Row) -> None:
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def both(action: np.ndarray, steps: int) -> np.ndarray:
    return np.tile(np.float32(action), (2, steps, 1))


ALL = np.ones(2, bool)


@pytest.mark.parametrize("check", [check.name for check in CHECKS])
def test_the_suite_finds_nothing(results, check) -> None:
    assert results[check].problems == ()
    assert results[check].result == ("skipped" if "dataset" in check else "ok"), results[check].seen


def test_keys_shapes_and_dtypes(env) -> None:
    spec = contract.observation_spec(TASK, SIZE)
    for observation in (
        env.reset(seed=0)[0],
        env.step(random_actions(1)[:, 0])[0],
        env.chunk_step(random_actions(2), ALL).observation,
    ):
        assert list(observation) == list(spec)
        for group, arrays in spec.items():
            assert list(observation[group]) == list(arrays)
            for key, (shape, dtype) in arrays.items():
                assert (observation[group][key].shape, observation[group][key].dtype) == ((2, *shape), dtype), key
        assert env.observation_space.contains(observation)


def test_identity(env) -> None:
    identity = env.identity
    assert (identity.task, identity.prompt, identity.image_size) == ("stack3", TASK.prompt, SIZE)
    assert (identity.control_hz, identity.max_episode_steps) == (20, STEPS)
    assert identity.backend.startswith(("mujoco-", "isaaclab-3.0"))


def test_an_episode_starts_where_its_seed_says(env) -> None:
    policy = env.reset(seed=[3, 44])[0]["policy"]
    assert not policy["actions"].any()
    np.testing.assert_allclose(policy["joint_vel"], 0, atol=1e-6)
    np.testing.assert_allclose(policy["gripper_pos"], [[0.04, -0.04]] * 2, atol=1e-6)
    for i, seed in enumerate((3, 44)):
        start = sample_reset(seed, 3, kinematics.ARM_LIMITS)
        np.testing.assert_allclose(policy["joint_pos"][i] + contract.DEFAULT_JOINT_POS, start.joint_pos, atol=1e-5)
        cubes = policy["cube_positions"][i].reshape(3, 3)
        np.testing.assert_allclose(cubes[:, :2], start.cube_xy, atol=1e-5)
        np.testing.assert_allclose(cubes[:, 2], contract.CUBE_RESET_HEIGHT, atol=1e-5)
        yaws = contract.quat_yaw(policy["cube_orientations"][i].reshape(3, 4))
        np.testing.assert_allclose(yaws, start.cube_yaw, atol=1e-5)


def test_the_end_effector_is_where_the_joints_put_it(env) -> None:
    """At once after a reset, too, and with the same sign of the quaternion in every backend."""
    observation = env.reset(seed=[5, 6])[0]
    for _ in range(4):
        policy = observation["policy"]
        arm = (policy["joint_pos"] + contract.DEFAULT_JOINT_POS)[:, :7]
        position, quat = kinematics.eef_pose(arm)
        np.testing.assert_allclose(policy["eef_pos"], position, atol=1e-4)
        np.testing.assert_allclose(policy["eef_quat"], quat, atol=1e-4)
        observation, *_ = env.step(random_actions(1)[:, 0])


def test_object_is_made_of_poses_and_differences(env) -> None:
    env.reset(seed=1)
    policy = env.chunk_step(random_actions(5), ALL).observation["policy"]
    cubes, quats = policy["cube_positions"].reshape(2, 3, 3), policy["cube_orientations"].reshape(2, 3, 4)
    expected = [
        np.concatenate([cubes, quats], axis=-1).reshape(2, -1),
        (cubes - policy["eef_pos"][:, None]).reshape(2, -1),
        cubes[:, 0] - cubes[:, 1],
        cubes[:, 1] - cubes[:, 2],
        cubes[:, 0] - cubes[:, 2],
    ]
    np.testing.assert_allclose(policy["object"], np.concatenate(expected, axis=-1), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_commanded_delta_moves_the_hand_along_its_axis(env, axis) -> None:
    """Of the base, hardly along the others, and towards half of it: in a control step the arm, whose drives have a time
    constant of 80 / 400 s, comes about a quarter of the way."""
    env.reset(seed=2)
    action = HOLD.copy()
    action[axis] = 0.04
    env.chunk_step(both(action, 5), ALL)  # under way
    before = env.observe(images=False)["policy"]["eef_pos"]
    moved = env.chunk_step(both(action, 5), ALL).observation["policy"]["eef_pos"] - before
    target = 5 * 0.04 * contract.ACTION_SCALE
    assert (moved[:, axis] > 0.15 * target).all(), moved
    assert (moved[:, axis] < 0.4 * target).all(), moved
    assert (np.abs(np.delete(moved, axis, axis=1)) < 0.02).all(), moved


def test_a_commanded_turn_is_about_the_axis_of_the_base(env) -> None:
    env.reset(seed=2)
    before = contract.finger_yaw(env.observe(images=False)["policy"]["eef_quat"])
    action = HOLD.copy()
    action[5] = 0.2
    policy = env.chunk_step(both(action, 6), ALL).observation["policy"]
    turned = contract.finger_yaw(policy["eef_quat"]) - before
    assert ((turned > 0.08) & (turned < 0.3)).all(), turned


def test_the_gripper_closes_below_zero_and_opens_at_zero(env) -> None:
    env.reset(seed=0)
    close, zero = HOLD.copy(), np.zeros(7, np.float32)
    close[-1] = -0.01
    closed = env.chunk_step(both(close, 12), ALL).observation["policy"]
    np.testing.assert_allclose(closed["gripper_pos"], 0, atol=2e-3)
    np.testing.assert_array_equal(closed["actions"], both(close, 1)[:, 0])
    opened = env.chunk_step(both(zero, 12), ALL).observation["policy"]["gripper_pos"]
    np.testing.assert_allclose(opened, [[0.04, -0.04]] * 2, atol=2e-3)


# Poses of the cameras, position and quaternion wxyz in ROS's convention (z forward, y down), and what each hangs on.
CAMERAS = {
    contract.TABLE_CAM: ((1.0, 0.0, 0.4), (0.35355, -0.61237, -0.61237, 0.35355)),  # the base
    contract.WRIST_CAM: ((0.13, 0.0, -0.15), (-0.70614, 0.03701, 0.03701, -0.70614)),  # panda_hand
}
CUBE_CHANNELS = (2, 0, 1)  # blue, red, green


def cube_pixels(policy: Row, camera: str) -> np.ndarray:
    """Where the cubes' centres are in an image, (3, 2) as column and row in pixels, by the poses in the observation."""
    position, quat = (np.array(each) for each in CAMERAS[camera])
    if camera == contract.WRIST_CAM:
        hand = policy["eef_pos"] - kinematics.rotate(policy["eef_quat"], np.array([0, 0, contract.EEF_FRAME_OFFSET]))
        position = hand + kinematics.rotate(policy["eef_quat"], position)
        quat = kinematics.multiply(policy["eef_quat"], quat)
    back = quat * (1, -1, -1, -1)
    points = np.stack([kinematics.rotate(back, cube - position) for cube in policy["cube_positions"].reshape(3, 3)])
    focal = contract.CAMERA_FOCAL_LENGTH / contract.CAMERA_APERTURE * SIZE
    return points[:, :2] / points[:, 2:] * focal + SIZE / 2


def test_cameras_see_the_cubes_where_their_poses_put_them(env) -> None:
    """The wrist's moves with the hand. A simulator may show what was, or from where the camera was."""
    observation = env.reset(seed=[0, 7])[0]
    for axis in (None, 0, 1, 2, 3, 4, 5):
        if axis is not None:
            action = HOLD.copy()
            action[axis] = 0.1
            observation = env.chunk_step(both(action, 4), ALL).observation
        for i in range(2):
            policy = row(observation, i)
            for camera in CAMERAS:
                seen = 0
                for channel, (column, line) in zip(CUBE_CHANNELS, cube_pixels(policy, camera), strict=True):
                    if min(column, line) < 1 or max(column, line) > SIZE - 1:
                        continue
                    pixel = policy[camera][int(line), int(column)].astype(int)
                    if np.ptp(pixel) < 15:  # grey: the hand is in front of it
                        continue
                    seen += 1
                    assert pixel[channel] > 1.3 * np.delete(pixel, channel).max(), (camera, i, axis, channel, pixel)
                assert seen, (camera, i, axis)


def test_frames_come_after_every_control_step(env) -> None:
    env.reset(seed=0)
    frames: dict[tuple[int, int], np.ndarray] = {}

    def on_frame(i: int, t: int) -> None:
        frames[i, t] = env.render_frame(i, 24)

    env.chunk_step(random_actions(3), ALL, on_frame)
    assert sorted(frames) == [(i, t) for i in range(2) for t in range(3)]
    assert {(frame.shape, str(frame.dtype)) for frame in frames.values()} == {((24, 48, 3), "uint8")}
    assert (frames[0, 0] != frames[0, 2]).any()
