"""What the simulators of the contract differ by: the same seeds and actions in MuJoCo and in IsaacLab, and their speed.

    ISAACLAB_PYTHON=isaaclab-venv/bin/python python benchmarks/backends.py

What they have in common is what `tests/rlinf_isaac/envs/test_conformance.py` holds both to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from rlinf_isaac.config.schema import EnvConfig, JobConfig
from rlinf_isaac.engines.demonstrations import record_episodes
from rlinf_isaac.envs import make_env
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.backends import BACKENDS

HOLD = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)
SIZE = 64
MOTION = 0.04  # of the action: 2 cm of the hand

Policy = dict[str, np.ndarray]


def play(env: Any, seeds: range, action: np.ndarray, steps: int) -> list[Policy]:
    """``obs["policy"]`` after the reset, and after each of some steps with the same action."""
    observations = [env.reset(seed=list(seeds))[0]["policy"]]
    actions = np.tile(action, (len(seeds), 1))
    for _ in range(steps):
        observations.append(env.step(actions)[0]["policy"])
    return observations


def command(axis: int, value: float) -> np.ndarray:
    """The action that holds still but for this axis."""
    action = HOLD.copy()
    action[axis] = value
    return action


@dataclass(frozen=True)
class Measured:
    """Figures of one backend, and ``obs["policy"]`` after a reset and a second later."""

    figures: dict[str, float]
    reset: Policy
    rest: Policy


def measure(env: Any, seeds: range, noises: Sequence[float]) -> Measured:
    """Everything about one backend."""
    figures = {}
    resting = play(env, seeds, HOLD, 20)
    for axis, name in enumerate("xyz"):
        moving = play(env, seeds, command(axis, MOTION), 10)
        moved = moving[10]["eef_pos"] - moving[5]["eef_pos"]
        target = 5 * MOTION * contract.ACTION_SCALE
        figures[f"way of the hand along {name}, share of the half of the action"] = (moved[:, axis] / target).mean()
        figures[f"its drift to the sides meanwhile, mm per step, largest ({name})"] = (
            1e3 * np.abs(np.delete(moved, axis, axis=1)).max() / 5
        )
    closing = play(env, seeds, command(6, -1.0), 15)
    closed = [step for step, each in enumerate(closing) if (np.abs(each["gripper_pos"]) < 1e-3).all()]
    figures["control steps until the fingers are within 1 mm of closed"] = closed[0] if closed else np.inf
    for key, name in (("eef_pos", "hand"), ("cube_positions", "cubes")):
        moved = np.abs(resting[-1][key] - resting[0][key]).max()
        figures[f"{name}: moved while the arm holds still for 1 s, mm, largest"] = 1e3 * moved
    for noise in noises:
        episodes = record_episodes(env, seeds, noise, "proprio")
        lengths = [len(each.columns["action"]) for each in episodes if each.columns is not None]
        figures[f"expert, noise {noise}: episodes solved of {len(seeds)}"] = len(lengths)
        figures[f"expert, noise {noise}: control steps of those"] = np.mean(lengths) if lengths else np.nan
    began = time.perf_counter()
    play(env, seeds, HOLD, 20)
    figures[f"ms per control step of {env.num_envs} envs, with images"] = 1e3 * (time.perf_counter() - began) / 20
    return Measured(figures, resting[0], resting[-1])


@click.command()
@click.option("--envs", default=10, show_default=True, help="Episodes, side by side.")
@click.option("--steps", default=400, show_default=True, help="Longest episode of the expert.")
def main(envs: int, steps: int) -> None:
    """Print the differences between the backends."""
    found = {}
    for backend in BACKENDS:
        env = make_env(JobConfig(env=EnvConfig(backend, "stack3", image_size=SIZE, max_episode_steps=steps)), envs)
        found[backend] = measure(env, range(envs), (0.0, 0.02))
        env.close()
    one, other = found.values()
    table = Table("", *BACKENDS)
    for name in one.figures:
        if "ms per" not in name:
            table.add_row(name, *(f"{each.figures[name]:.3g}" for each in found.values()))
    for when in ("reset", "rest"):
        policies = getattr(one, when), getattr(other, when)
        for key in ("joint_pos", "eef_pos", "eef_quat", "cube_positions", "cube_orientations"):
            largest = np.abs(policies[0][key] - policies[1][key]).max()
            table.add_row(f"{key}, {when}: largest difference", "", f"{largest:.2g}")
        for camera in contract.CAMERA_NAMES:
            mean = np.abs(policies[0][camera].astype(float) - policies[1][camera]).mean()
            table.add_row(f"{camera}, {when}: mean difference of a channel, of 255", "", f"{mean:.3g}")
    (speed,) = (name for name in one.figures if "ms per" in name)
    table.add_row(speed, *(f"{each.figures[speed]:.3g}" for each in found.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
