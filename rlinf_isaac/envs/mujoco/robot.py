"""MJCF of a Franka Panda built from primitives, without mesh files.

Kinematics (frames, joint ranges) are Franka's published Denavit-Hartenberg parameters; masses and inertias are rounded
from the identified ones in franka_ros. Gains are those of IsaacLab's FRANKA_PANDA_HIGH_PD_CFG (stiffness 400, damping
80, gravity compensated). The damping is a property of the joints, not of the actuators: an actuator at its force limit
is integrated explicitly, and with this much damping the light last joints would then chatter.

Geoms of the class ``shell`` collide with table and cubes (contype 2, conaffinity 0, so that the arm never collides with
itself). Geoms of the class ``trim`` are only visible: no geom has a conaffinity that matches their contype 4. The
contype is not 0, because ``mj_multiRay`` culls a body's geoms by the bounding box of those that may collide. The base
and link 1 consist of trim only: if link 1 touched the table, it would brake joint 1.
"""

from __future__ import annotations

from rlinf_isaac.envs.stack_cube.contract import GRIPPER_OPEN, IK_FRAME_OFFSET, NUM_ARM_JOINTS

ARM_STIFFNESS, ARM_DAMPING = 400, 80
# In N m. Franka's last three joints have 12. Here the limit applies only to the spring, and 12 would halve the hand's
# speed.
ARM_EFFORT = (87, 87, 87, 87, 48, 48, 48)
FINGER_STIFFNESS, FINGER_DAMPING, FINGER_EFFORT = 1000, 70, 40

ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, NUM_ARM_JOINTS + 1))
FINGER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
HAND_BODY = "panda_hand"
IK_SITE = "ik_frame"

DEFAULTS = f"""
<default class="panda">
  <joint axis="0 0 1" damping="{ARM_DAMPING}" armature="0.1"/>
  <default class="shell">
    <geom type="capsule" contype="2" conaffinity="0" mass="0" group="2" rgba="0.93 0.935 0.94 1"/>
  </default>
  <default class="trim">
    <geom type="cylinder" contype="4" conaffinity="0" mass="0" group="2" rgba="0.22 0.235 0.26 1"/>
    <default class="white"><geom rgba="0.93 0.935 0.94 1"/></default>
  </default>
  <default class="finger">
    <joint type="slide" axis="0 1 0" range="0 {GRIPPER_OPEN}" damping="{FINGER_DAMPING}" armature="0.1"/>
  </default>
  <default class="pad">
    <geom type="box" size="0.0095 0.005 0.011" contype="2" conaffinity="0" mass="0" group="2" rgba="0.12 0.125 0.13 1"
      friction="1.5 0.02 0.0005" solref="0.008 1" solimp="0.95 0.99 0.001" priority="1" condim="4"/>
  </default>
</default>
"""


def _finger(number: int, quat: str) -> str:
    return f"""
<body name="panda_finger{number}" pos="0 0 0.0584" quat="{quat}" gravcomp="1">
  <inertial mass="0.05" pos="0 0.01 0.03" diaginertia="2e-5 2e-5 1e-5"/>
  <joint name="{FINGER_JOINTS[number - 1]}" class="finger"/>
  <geom class="trim" type="box" pos="0 0.0115 0.016" size="0.0095 0.0065 0.016"/>
  <geom class="trim" type="box" pos="0 0.0075 0.040" size="0.0085 0.0045 0.014" rgba="0.3 0.31 0.33 1"/>
  <geom name="pad_{number}" class="pad" pos="0 0.005 0.0445"/>
</body>"""


def arm_mjcf(hand_extras: str) -> str:
    """The arm's body tree, with the base at the origin. `hand_extras` (a camera) is inserted into the hand's body."""
    return f"""
<body name="panda_link0" childclass="panda">
  <geom class="trim" pos="0 0 0.012" size="0.105 0.012"/>
  <geom class="white" type="capsule" fromto="-0.09 0 0.06 0.005 0 0.07" size="0.058"/>
  <geom class="white" pos="0 0 0.085" size="0.078 0.062"/>
  <geom class="trim" pos="0 0 0.144" size="0.079 0.005"/>
  <body name="panda_link1" pos="0 0 0.333" gravcomp="1">
    <inertial mass="4.97" pos="0 -0.02 -0.05" diaginertia="0.04 0.04 0.01"/>
    <joint name="panda_joint1" range="-2.8973 2.8973"/>
    <geom class="white" type="capsule" fromto="0 0 -0.12 0 0 -0.02" size="0.066"/>
    <geom class="white" pos="0 0 -0.15" size="0.066 0.035"/>
    <body name="panda_link2" quat="1 -1 0 0" gravcomp="1">
      <inertial mass="0.65" pos="0 -0.03 0" diaginertia="0.008 0.008 0.008"/>
      <joint name="panda_joint2" range="-1.7628 1.7628"/>
      <geom class="shell" fromto="0 0 -0.055 0 0 0.055" size="0.064"/>
      <geom class="trim" size="0.0655 0.078"/>
      <geom class="white" size="0.067 0.068"/>
      <geom class="shell" fromto="0 -0.05 0 0 -0.16 0" size="0.06"/>
      <body name="panda_link3" pos="0 -0.316 0" quat="1 1 0 0" gravcomp="1">
        <inertial mass="3.23" pos="0.027 0.039 -0.066" diaginertia="0.037 0.036 0.011"/>
        <joint name="panda_joint3" range="-2.8973 2.8973"/>
        <geom class="trim" pos="0 0 -0.138" size="0.0605 0.006"/>
        <geom class="shell" fromto="0 0 -0.09 0.03 0 -0.045" size="0.06"/>
        <geom class="shell" fromto="0.04 0 -0.03 0.0825 0 0" size="0.055"/>
        <body name="panda_link4" pos="0.0825 0 0" quat="1 1 0 0" gravcomp="1">
          <inertial mass="3.59" pos="-0.053 0.104 0.027" diaginertia="0.026 0.02 0.028"/>
          <joint name="panda_joint4" range="-3.0718 -0.0698"/>
          <geom class="shell" fromto="0 0 -0.05 0 0 0.05" size="0.058"/>
          <geom class="trim" size="0.0595 0.072"/>
          <geom class="white" size="0.061 0.062"/>
          <geom class="shell" fromto="-0.03 0.04 0 -0.0825 0.10 0" size="0.057"/>
          <body name="panda_link5" pos="-0.0825 0.384 0" quat="1 -1 0 0" gravcomp="1">
            <inertial mass="1.23" pos="-0.012 0.041 -0.038" diaginertia="0.035 0.029 0.009"/>
            <joint name="panda_joint5" range="-2.8973 2.8973"/>
            <geom class="trim" pos="0 0 -0.262" size="0.0575 0.006"/>
            <geom class="shell" fromto="0 0.005 -0.25 0 0.03 -0.17" size="0.056"/>
            <geom class="shell" fromto="0 0.045 -0.16 0 0.06 -0.05" size="0.045"/>
            <geom class="shell" fromto="0 0.05 -0.04 0 0 0" size="0.045"/>
            <body name="panda_link6" quat="1 1 0 0" gravcomp="1">
              <inertial mass="1.67" pos="0.06 -0.014 -0.01" diaginertia="0.002 0.0043 0.0054"/>
              <joint name="panda_joint6" range="-0.0175 3.7525"/>
              <geom class="shell" fromto="0 0 -0.045 0 0 0.045" size="0.05"/>
              <geom class="trim" size="0.0515 0.061"/>
              <geom class="white" size="0.053 0.052"/>
              <geom class="shell" fromto="0.02 0 0 0.088 0 0" size="0.047"/>
              <body name="panda_link7" pos="0.088 0 0" quat="1 1 0 0" gravcomp="1">
                <inertial mass="0.735" pos="0.01 -0.004 0.06" diaginertia="0.0125 0.01 0.0048"/>
                <joint name="panda_joint7" range="-2.8973 2.8973"/>
                <geom class="shell" type="cylinder" pos="0 0 0.055" size="0.046 0.028"/>
                <geom class="trim" pos="0 0 0.088" size="0.044 0.005"/>
                <geom class="white" pos="0 0 0.100" size="0.034 0.007"/>
                <body name="{HAND_BODY}" pos="0 0 0.107" quat="0.92388 0 0 -0.38268" gravcomp="1">
                  <inertial mass="0.73" pos="0 0 0.03" diaginertia="0.001 0.0025 0.0017"/>
                  <geom class="trim" pos="0 0 0.004" size="0.033 0.004"/>
                  <geom class="shell" fromto="0 -0.078 0.034 0 0.078 0.034" size="0.026"/>
                  <geom class="trim" type="box" pos="0 0 0.059" size="0.0195 0.088 0.004"/>
                  <site name="{IK_SITE}" pos="0 0 {IK_FRAME_OFFSET}" size="0.002" group="5"/>
                  {hand_extras}
                  {_finger(1, "1 0 0 0")}
                  {_finger(2, "0 0 0 1")}
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </body>
</body>"""


def contact_mjcf() -> str:
    """Excludes collisions between the fingers."""
    return '<exclude body1="panda_finger1" body2="panda_finger2"/>'


def actuator_mjcf() -> str:
    """Position servos: seven arm joints, then two fingers (the order of ``ctrl``)."""
    arm = [
        f'<position name="{joint}" joint="{joint}" kp="{ARM_STIFFNESS}" forcerange="{-effort} {effort}"/>'
        for joint, effort in zip(ARM_JOINTS, ARM_EFFORT, strict=True)
    ]
    fingers = [
        f'<position name="{joint}" joint="{joint}" kp="{FINGER_STIFFNESS}" '
        f'ctrlrange="0 {GRIPPER_OPEN}" forcerange="{-FINGER_EFFORT} {FINGER_EFFORT}"/>'
        for joint in FINGER_JOINTS
    ]
    return "\n".join(arm + fingers)
