"""The stack-cube scene as one MJCF text: table, cubes, cameras, lights, and the arm of `robot.py`."""

from __future__ import annotations

import math

from rlinf_isaac.envs.mujoco import robot
from rlinf_isaac.envs.stack_cube import contract

PHYSICS_DT = 0.005
PHYSICS_STEPS_PER_CONTROL_STEP = 10  # 20 Hz
PHYSICS_STEPS_PER_IK_SOLVE = 2  # 0.01 s: IsaacLab's physics step, at which it solves IK

CUBE_MASS = 0.05
CUBE_RGBA = {"blue": "0.10 0.27 0.84 1", "red": "0.84 0.13 0.11 1", "green": "0.12 0.62 0.24 1"}
FIELD_OF_VIEW = math.degrees(2 * math.atan(contract.CAMERA_APERTURE / 2 / contract.CAMERA_FOCAL_LENGTH))

OVERVIEW_CAM = "overview_cam"  # shows people the whole scene; not part of the contract

# IsaacLab's camera poses, quaternions wxyz in the ROS convention (+z forward, -y up).
TABLE_CAM_POS, TABLE_CAM_ROS_QUAT = (1.0, 0.0, 0.4), (0.35355, -0.61237, -0.61237, 0.35355)
WRIST_CAM_POS, WRIST_CAM_ROS_QUAT = (0.13, 0.0, -0.15), (-0.70614, 0.03701, 0.03701, -0.70614)


def cube_name(number: int) -> str:
    """Body, joint and geom name of cube `number`, counted from 1."""
    return f"cube_{number}"


def scene_mjcf(num_cubes: int) -> str:
    """The MJCF text of the scene with `num_cubes` cubes. It refers to no other files."""
    wrist_cam = _camera_mjcf(contract.WRIST_CAM, WRIST_CAM_POS, WRIST_CAM_ROS_QUAT)
    cubes = "".join(_cube_mjcf(i, contract.CUBE_COLOURS[i - 1]) for i in range(1, num_cubes + 1))
    return f"""<mujoco model="stack_cube">
<compiler angle="radian" autolimits="true"/>
<option timestep="{PHYSICS_DT}" integrator="implicitfast" cone="elliptic" impratio="10"/>
<visual>
  <!-- A software GL pays for every triangle, and up to a hundredfold for a shadow map and multisampling. For the same
    reason there is no sky, and the floor is a box: an infinite plane is drawn as tens of thousands of tiles. -->
  <quality shadowsize="0" offsamples="0" numslices="14" numstacks="6" numquads="1"/>
  <map znear="0.02" zfar="30"/>
  <headlight ambient="0.33 0.33 0.33" diffuse="0.30 0.30 0.30" specular="0 0 0"/>
</visual>
<statistic extent="1" center="0.5 0 0.1"/>
<default>
  <geom rgba="0.5 0.5 0.5 1"/>
  {robot.DEFAULTS}
</default>
<worldbody>
  <light name="key" pos="1 -0.8 2" dir="-0.35 0.45 -1" diffuse="0.46 0.46 0.44" specular="0 0 0" directional="true"/>
  <geom name="floor" type="box" pos="0 0 -0.81" size="16 16 0.01" contype="4" conaffinity="0" rgba="0.56 0.60 0.65 1"/>
  <geom name="table" type="box" pos="0.375 0 {contract.TABLE_HEIGHT - 0.02}" size="0.625 0.6 0.02"
    contype="1" conaffinity="3" friction="1 0.005 0.0001" rgba="0.80 0.74 0.65 1"/>
  <geom name="mat" type="box" pos="0.5 0 {contract.TABLE_HEIGHT + 0.0002}" size="0.17 0.17 0.0004"
    contype="4" conaffinity="0" rgba="0.68 0.63 0.56 1"/>
  <camera name="{OVERVIEW_CAM}" pos="1.35 -1 1.25" xyaxes="0.690 0.724 -0.000 -0.388 0.369 0.844" fovy="40"/>
  {_camera_mjcf(contract.TABLE_CAM, TABLE_CAM_POS, TABLE_CAM_ROS_QUAT)}
  {robot.arm_mjcf(hand_extras=wrist_cam)}
  {cubes}
</worldbody>
<contact>{robot.contact_mjcf()}</contact>
<actuator>
{robot.actuator_mjcf()}
</actuator>
</mujoco>
"""


def _cube_mjcf(number: int, colour: str) -> str:
    name, half = cube_name(number), contract.CUBE_HALF_SIZE
    return f"""
<body name="{name}" pos="{0.4 + 0.1 * number} 0 {contract.CUBE_RESET_HEIGHT}">
  <freejoint name="{name}"/>
  <geom name="{name}" type="box" size="{half} {half} {half}" mass="{CUBE_MASS}" rgba="{CUBE_RGBA[colour]}"
    friction="1 0.005 0.0001" solref="0.01 1" condim="4" contype="1" conaffinity="3"/>
</body>"""


def _camera_mjcf(name: str, pos: tuple[float, ...], ros_quat: tuple[float, ...]) -> str:
    quat = " ".join(f"{value:.6g}" for value in _ros_to_mujoco(ros_quat))
    return f'<camera name="{name}" pos="{" ".join(map(str, pos))}" quat="{quat}" fovy="{FIELD_OF_VIEW:.6f}"/>'


def _ros_to_mujoco(quat: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Converts a camera's quaternion wxyz. ROS cameras look along +z with -y up, MuJoCo's along -z with +y up: the
    difference is half a turn about the camera's x axis."""
    w, x, y, z = quat
    return (-x, w, z, -y)  # quat * (0, 1, 0, 0)
