"""What IsaacLab's lift task lacks: a term for its success, and a scripted expert. Runs in IsaacLab's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rlinf_isaac.envs.isaaclab import kinematics

HOME = np.array([0.0, -0.569, 0.0, -2.810, 0.0, 3.037, 0.741])
"""The arm's joints at a reset, radians; the observation is relative to them."""
DOWN = np.array([0.0, 1.0, 0.0, 0.0])
"""Rotation wxyz of a hand that points down, its fingers opening along y."""
GAIN, FASTEST, CARRYING, TURN = 5.0, 0.4, 0.15, 2.0
"""Actions for a metre of way, at most, at most with the cube, and for a radian of turn; IsaacLab scales actions by
0.5."""
ABOVE, NEAR, CLOSING = 0.10, 0.012, 15
"""Metres over the cube from where the hand goes down; metres within which a point is reached; control steps in which
the fingers close."""


def at_goal(env: Any, distance: float, height: float) -> torch.Tensor:
    """(N,) whether the cube is within `distance` metres of the commanded point, and more than `height` metres up: what
    IsaacLab's reward counts as success."""
    cube, robot = env.scene["object"].data.root_pos_w.torch, env.scene["robot"].data.root_pos_w.torch
    goal = robot + env.command_manager.get_command("object_pose")[:, :3]  # the robot's base is not turned
    return (torch.linalg.norm(cube - goal, dim=-1) < distance) & (cube[:, 2] > height)


class Expert:
    """Goes above the cube, down, closes the fingers, and carries it to the goal. It reads where the cube is."""

    def __init__(self, env: Any) -> None:
        self.phase, self.count = 0, 0

    def reset(self, seed: int) -> None:
        """Begin an episode. Nothing is random."""
        self.phase, self.count = 0, 0

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """(7,) the action."""
        seen = observation["policy"]
        (hand,), (quat,) = kinematics.eef_pose((seen["joint_pos"][:7] + HOME)[None])
        cube, goal = seen["object_position"], seen["target_object_position"][:3]
        way = [cube + np.array([0, 0, ABOVE]), cube, cube, goal][self.phase] - hand
        if self.phase == 2:
            self.count += 1
        if (self.phase < 2 and np.linalg.norm(way) < NEAR) or (self.phase == 2 and self.count == CLOSING):
            self.phase += 1
        turn = kinematics.multiply(DOWN, quat * (1, -1, -1, -1))
        turn = turn * (1 if turn[0] > 0 else -1)
        grip, most = (-1.0, CARRYING) if self.phase >= 2 else (1.0, FASTEST)
        return np.concatenate([np.clip(GAIN * way, -most, most), 2 * TURN * turn[1:], [grip]])
