"""A scripted expert that stacks the cubes in order. It reads only the low-dimensional observation.

The expert is a state machine over waypoints of the end effector. Its actions, in the form of the contract, are
proportional steps towards the waypoint, with the hand pointing down and the fingers aligned with the cube's faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rlinf_isaac.envs.stack_cube import contract

EXPERT_VERSION = "scripted-1"  # recorded in datasets; increase it when the expert's actions change

OPEN, CLOSE = 1.0, -1.0
POSITION_GAIN, ROTATION_GAIN = 0.8, 0.7  # share of the error that one action corrects
MAX_ROTATION = 0.5  # largest rotation of one action, radians
HOVER_HEIGHT = 0.10  # height above the cube to be grasped
TRANSPORT_HEIGHT = 0.13  # smallest height of the end effector while it carries a cube
CLEARANCE = 0.08  # height above the target stack while carrying
RETREAT_HEIGHT = 0.12  # height above the stack after releasing
PLACE_GAP = 0.001  # height above contact at which a cube is released
ALIGN_FIRST = 0.012  # lateral error above which a vertical move is slowed down
EMPTY_GRIPPER = 0.03  # finger distance below which the cube must have slipped out
PHASE_TIMEOUT = 90  # control steps after which a phase ends even if it has not reached its waypoint


class Phase(NamedTuple):
    """One phase of picking up and placing a cube. Lengths in metres, speeds in metres per control step."""

    name: str
    gripper: float
    tolerance: float
    min_steps: int
    max_speed: float = 0.12


PHASES = (
    Phase("hover", OPEN, 0.012, 0),
    Phase("descend", OPEN, 0.004, 0, 0.05),
    Phase("grasp", CLOSE, np.inf, 6),
    Phase("lift", CLOSE, 0.02, 0),
    Phase("carry", CLOSE, 0.008, 0),
    Phase("lower", CLOSE, 0.004, 0, 0.05),
    Phase("release", OPEN, np.inf, 5),
    Phase("retreat", OPEN, 0.03, 0),
)
_INDEX = {phase.name: i for i, phase in enumerate(PHASES)}


class View(NamedTuple):
    """The quantities that the expert computes from one row of an observation."""

    eef: np.ndarray
    hand: np.ndarray  # (3, 3) rotation matrix: the hand's axes as columns
    width: float  # distance between the fingers
    cubes: np.ndarray  # (cubes, 3)
    yaws: np.ndarray  # (cubes,)

    @property
    def finger_yaw(self) -> float:
        """Direction along which the fingers move, about the world's z axis."""
        return float(np.arctan2(self.hand[1, 1], self.hand[0, 1]))


class ScriptedExpert:
    """Acts in one env for one episode. Every episode needs a new expert."""

    def __init__(self) -> None:
        self._transport_height = TRANSPORT_HEIGHT
        self._cube: int | None = None  # index of the cube to move; None if not chosen yet, or if all are stacked
        self._phase = _INDEX["hover"]
        self._steps = 0  # number of steps in this phase
        self._yaw: float | None = None  # finger direction to hold; None if not chosen yet

    @property
    def phase(self) -> str:
        """Name of the current phase."""
        return PHASES[self._phase].name

    def act(self, policy_obs: Mapping[str, np.ndarray], row: int = 0) -> np.ndarray:
        """The action (7,) float32 for this row of ``obs["policy"]``; cameras are not used."""
        view = _view(policy_obs, row)
        if self._cube is None:
            self._cube = _next_cube(view)
        if self._cube is None:  # everything is stacked
            return np.array([0, 0, 0, 0, 0, 0, OPEN], np.float32)
        phase = PHASES[self._phase]
        if self._yaw is None:
            self._yaw = self._yaw_target(view)
        yaw_error = _wrap(self._yaw - view.finger_yaw)
        target = self._waypoint(view)
        action = _move(view, target, yaw_error, phase)
        self._advance(view, target, yaw_error, phase)
        return action

    def _waypoint(self, view: View) -> np.ndarray:
        """Target position of the end effector in the current phase."""
        assert self._cube is not None
        cube, base, eef = view.cubes[self._cube], view.cubes[self._cube - 1], view.eef
        rest = base[2] + contract.CUBE_SIZE  # height of the cube's centre when it is on its base
        held = cube - eef
        match self.phase:
            case "hover":
                return cube + np.array([0, 0, HOVER_HEIGHT])
            case "descend":
                return cube
            case "lift":
                return np.array([eef[0], eef[1], self._transport_height])
            case "carry":
                return np.array([*(base[:2] - held[:2]), self._transport_height])
            case "lower":
                return np.array([*(base[:2] - held[:2]), rest - held[2] + PLACE_GAP])
            case "retreat":
                return np.array([eef[0], eef[1], rest + RETREAT_HEIGHT])
        return eef  # grasp and release: do not move

    def _yaw_target(self, view: View) -> float:
        """The finger direction to hold during this phase: the nearest of the four equivalent ones of a cube."""
        assert self._cube is not None
        if self.phase == "hover":
            home = -np.pi / 2
            return home + _wrap(view.yaws[self._cube] - home, period=np.pi / 2)
        if self.phase == "carry":
            return view.finger_yaw + _wrap(view.yaws[self._cube - 1] - view.yaws[self._cube], period=np.pi / 2)
        return view.finger_yaw

    def _advance(self, view: View, target: np.ndarray, yaw_error: float, phase: Phase) -> None:
        assert self._cube is not None
        self._steps += 1
        if phase.name in ("lift", "carry") and view.width < EMPTY_GRIPPER:
            self._start_cycle()  # the cube has slipped out
            return
        error = target - view.eef
        reached = np.linalg.norm(error) < phase.tolerance and self._steps > phase.min_steps
        if phase.name in ("hover", "carry"):
            reached &= abs(yaw_error) < 0.05
        if phase.name == "lower":  # the cube may touch down a little before its waypoint
            reached |= np.linalg.norm(error[:2]) < 0.006 and error[2] > -0.003
        if not (reached or self._steps > PHASE_TIMEOUT):
            return
        if phase.name == "grasp":
            top = view.cubes[self._cube - 1][2] + contract.CUBE_SIZE
            self._transport_height = max(top + CLEARANCE, TRANSPORT_HEIGHT)
        if phase.name == "retreat":
            self._start_cycle()
        else:
            self._phase, self._steps = self._phase + 1, 0
            if self.phase in ("carry", "lower"):  # choose a direction aligned with the base, then keep the reached one
                self._yaw = None

    def _start_cycle(self) -> None:
        """Choose the next cube again: a later one, or one that slipped out or was knocked off."""
        self._cube, self._phase, self._steps, self._yaw = None, _INDEX["hover"], 0, None


def _view(policy_obs: Mapping[str, np.ndarray], row: int) -> View:
    w, x, y, z = np.asarray(policy_obs["eef_quat"][row], np.float64)
    hand = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    fingers = np.asarray(policy_obs["gripper_pos"][row], np.float64)
    cubes = np.asarray(policy_obs["cube_positions"][row], np.float64).reshape(-1, 3)
    yaws = contract.quat_yaw(np.asarray(policy_obs["cube_orientations"][row], np.float64).reshape(-1, 4))
    eef = np.asarray(policy_obs["eef_pos"][row], np.float64)
    return View(eef, hand, float(fingers[0] - fingers[1]), cubes, yaws)


def _next_cube(view: View) -> int | None:
    """Index of the lowest cube that is not in its place on the stack, or None."""
    for i in range(1, len(view.cubes)):
        offset = view.cubes[i] - view.cubes[i - 1] - (0, 0, contract.CUBE_SIZE)
        if np.linalg.norm(offset[:2]) > 0.035 or abs(offset[2]) > 0.006:
            return i
    return None


def _move(view: View, target: np.ndarray, yaw_error: float, phase: Phase) -> np.ndarray:
    """The action towards `target`: clipped proportional steps in position and rotation."""
    error = target - view.eef
    if phase.name in ("descend", "lower") and np.linalg.norm(error[:2]) > ALIGN_FIRST:
        error = error * (1, 1, 0.2)
    translation = _clip_norm(POSITION_GAIN * error, phase.max_speed)
    upright = np.cross(view.hand[:, 2], (0, 0, -1))
    rotation = _clip_norm(ROTATION_GAIN * (upright + np.array([0, 0, yaw_error])), MAX_ROTATION)
    motion = np.concatenate([translation, rotation]) / contract.ACTION_SCALE
    return np.append(motion, phase.gripper).astype(np.float32)


def _clip_norm(vector: np.ndarray, limit: float) -> np.ndarray:
    return vector * min(1.0, limit / max(float(np.linalg.norm(vector)), 1e-9))


def _wrap(angle: float, period: float = 2 * np.pi) -> float:
    """`angle` plus a multiple of `period`, in [-period / 2, period / 2)."""
    return float((angle + period / 2) % period - period / 2)
