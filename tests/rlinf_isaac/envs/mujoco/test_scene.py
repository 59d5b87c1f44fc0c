from __future__ import annotations

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rlinf_isaac.envs.mujoco import robot, scene
from rlinf_isaac.envs.stack_cube import contract

# Franka's Denavit-Hartenberg parameters (Craig's convention): a, d, alpha of frames 1..7 and the flange.
DH = [
    (0, 0.333, 0),
    (0, 0, -np.pi / 2),
    (0, 0.316, np.pi / 2),
    (0.0825, 0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0, 0, np.pi / 2),
    (0.088, 0, np.pi / 2),
    (0, 0.107, 0),
]


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(scene.scene_mjcf(3))


def hand_pose(joints: np.ndarray) -> np.ndarray:
    """panda_hand's pose (4, 4) by the textbook."""
    pose = np.eye(4)
    for (a, d, alpha), theta in zip(DH, [*joints, -np.pi / 4], strict=True):
        rotate_x, rotate_z = Rotation.from_euler("x", alpha).as_matrix(), Rotation.from_euler("z", theta).as_matrix()
        step = np.eye(4)
        step[:3, :3] = rotate_x @ rotate_z
        step[:3, 3] = [a, *(rotate_x @ [0, 0, d])[1:]]
        pose = pose @ step
    return pose


@pytest.mark.parametrize("seed", range(5))
def test_arm_has_frankas_kinematics(model: mujoco.MjModel, seed: int) -> None:
    data = mujoco.MjData(model)
    rows = [model.joint(name) for name in robot.ARM_JOINTS]
    joints = np.random.default_rng(seed).uniform([row.range[0] for row in rows], [row.range[1] for row in rows])
    data.qpos[[row.qposadr[0] for row in rows]] = joints
    mujoco.mj_kinematics(model, data)
    hand = data.body(robot.HAND_BODY)
    expected = hand_pose(joints)
    np.testing.assert_allclose(hand.xpos, expected[:3, 3], atol=1e-5)
    np.testing.assert_allclose(hand.xmat.reshape(3, 3), expected[:3, :3], atol=1e-5)


def test_table_camera_looks_where_isaaclabs_does(model: mujoco.MjModel) -> None:
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    w, x, y, z = scene.TABLE_CAM_ROS_QUAT
    ros = Rotation.from_quat([x, y, z, w]).as_matrix()
    axes = data.cam(contract.TABLE_CAM).xmat.reshape(3, 3)
    np.testing.assert_allclose(-axes[:, 2], ros[:, 2], atol=1e-4)  # forward
    np.testing.assert_allclose(axes[:, 1], -ros[:, 1], atol=1e-4)  # up
    np.testing.assert_allclose(-axes[:, 2], [-np.cos(np.pi / 6), 0, -np.sin(np.pi / 6)], atol=1e-3)
    assert model.cam(contract.TABLE_CAM).fovy[0] == pytest.approx(47.17, abs=0.01)


def test_cubes_have_the_contracts_size_and_colours(model: mujoco.MjModel) -> None:
    strongest = {"cube_1": 2, "cube_2": 0, "cube_3": 1}  # blue, red, green channel
    for name, channel in strongest.items():
        geom = model.geom(name)
        assert geom.size.tolist() == [contract.CUBE_HALF_SIZE] * 3
        assert int(np.argmax(geom.rgba[:3])) == channel


def test_robot_never_collides_with_itself(model: mujoco.MjModel) -> None:
    of_robot = [i for i in range(model.ngeom) if model.body(model.geom_bodyid[i]).name.startswith("panda_")]
    kinds = model.geom_contype[of_robot]
    affinities = model.geom_conaffinity[of_robot]
    assert not (kinds[:, None] & affinities[None]).any()


def test_base_and_first_link_cannot_touch_the_table(model: mujoco.MjModel) -> None:
    table = model.geom("table").conaffinity[0]
    for name in ("panda_link0", "panda_link1"):
        body = model.body(name)
        geoms = range(body.geomadr[0], body.geomadr[0] + body.geomnum[0])
        assert not any(model.geom_contype[geom] & table for geom in geoms)


def test_every_geom_can_be_hit_by_rays(model: mujoco.MjModel) -> None:
    """mj_multiRay culls bodies by a box around the geoms whose contype or conaffinity is not 0."""
    assert ((model.geom_contype != 0) | (model.geom_conaffinity != 0)).all()


def test_rates_agree_with_the_contract() -> None:
    control_step = scene.PHYSICS_DT * scene.PHYSICS_STEPS_PER_CONTROL_STEP
    assert control_step == pytest.approx(1 / contract.CONTROL_HZ)
    assert scene.PHYSICS_STEPS_PER_CONTROL_STEP % scene.PHYSICS_STEPS_PER_IK_SOLVE == 0
