"""The simulator's process, started by `client.SimulatorProcess`: carries out orders until its parent ends.

It runs in IsaacLab's interpreter as a script and finds its package by its own path, so that packages of the parent's
environment are not importable. stdout and stderr go to a log file, because IsaacLab prints a lot.
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from rlinf_isaac.envs.isaaclab.protocol import SharedArrays


def main(settings: dict[str, Any], connection: Connection) -> None:
    """Build the simulator, report that it is ready, and carry out orders."""
    from rlinf_isaac.envs.host.protocol import receive, send
    from rlinf_isaac.envs.isaaclab.protocol import SharedArrays
    from rlinf_isaac.envs.isaaclab.worker.rows import ASSET_ROOT, prepare_stand_ins
    from rlinf_isaac.envs.stack_cube import contract

    try:
        user_assets = os.environ.get(ASSET_ROOT)
        root = Path(user_assets) if user_assets else prepare_stand_ins(Path(settings["assets"]))
        os.environ[ASSET_ROOT] = str(root)  # isaaclab reads it when it is imported
        # IsaacLab imports mujoco but renders nothing with it; the parent's choice of GL may not be available here.
        os.environ["MUJOCO_GL"] = "disable"
        from importlib.metadata import version

        from rlinf_isaac.envs.isaaclab.worker import assets
        from rlinf_isaac.envs.isaaclab.worker.simulation import PHYSICS, NewtonSimulation

        origin = f"{'given' if user_assets else 'standin'}-{assets.digest(root)}"
        num_envs, image_size = settings["num_envs"], settings["image_size"]
        shared = SharedArrays(num_envs, contract.TASKS[settings["task"]], image_size, settings["memory"])
        hand = assets.hand_path(root)
        simulation = NewtonSimulation(num_envs, image_size, settings["max_episode_steps"], settings["device"], hand)
        simulation.write(shared)
        simulation.write_images(shared)  # compiles the renderer's kernels, which takes longer than an order may take
        simulation.write_frames(shared)
        send(connection, ok=True, version=version("isaaclab"), physics=PHYSICS, assets=origin)
        while True:
            order = receive(connection)
            match order["do"]:
                case "reset":
                    simulation.reset(order["rows"], order["seeds"])
                    simulation.write(shared)
                case "step":
                    simulation.step(_held(shared))
                    simulation.write(shared)
                case "images":
                    simulation.write_images(shared)
                case "frames":
                    simulation.write_frames(shared)
                case "close":
                    break
            send(connection, ok=True)
    except (EOFError, BrokenPipeError):
        pass
    except BaseException as error:
        traceback.print_exc()
        send(connection, ok=False, error=f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    os._exit(0)  # there is nothing to save, and an orderly exit of the interpreter takes seconds


def _held(shared: SharedArrays) -> np.ndarray:
    """The next actions. Envs that are not active get a zero motion with an open gripper."""
    actions = shared.actions.copy()
    actions[~shared.active] = (0, 0, 0, 0, 0, 0, 1)
    return actions


if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[2] / "host" / "worker" / "begin.py"))["begin"](main)
