"""HDF5 demonstrations in the published structures of IsaacLab and of robomimic, written with h5py.

IsaacLab: `HDF5DatasetFileHandler.write_episode` and the recorder terms of `ActionStateRecorderManagerCfg`. robomimic:
"Dataset Structure" of its documentation, and ``split_train_val.py`` for the masks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROMPT = "Stack the red block on the blue block."
ISAACLAB_ARGS = {
    "env_name": "Isaac-Stack-Cube-Franka-IK-Rel-Visuomotor-Mimic-v0",
    "type": 2,
    "sim_args": {"dt": 0.01, "decimation": 5, "render_interval": 5, "num_envs": 10},
}
ROBOMIMIC_ARGS = {
    "env_name": "Lift",
    "type": 1,
    "env_kwargs": {"robots": ["Panda"], "control_freq": 20, "camera_heights": 84, "reward_shaping": False},
}


def isaaclab(
    path: Path, lengths: Sequence[int] = (5, 7, 4), failed: Sequence[int] = (), size: int = 12, seed: int = 0
) -> Path:
    """As Mimic's generate_dataset writes it: gzip, float32, nested states, failed ones marked."""
    import h5py

    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = json.dumps(ISAACLAB_ARGS)
        for number, length in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo.attrs["success"] = number not in failed
            arrays: dict[str, Any] = {
                "actions": _floats(rng, length, 7),
                "processed_actions": _floats(rng, length, 8),
                "obs/actions": _floats(rng, length, 7),
                "obs/eef_pos": _floats(rng, length, 3),
                "obs/eef_quat": _floats(rng, length, 4),
                "obs/gripper_pos": _floats(rng, length, 2),
                "obs/datagen_info/eef_pose/franka": _floats(rng, length, 4, 4),
                "obs/table_cam": _images(rng, length, size, size, 3),
                "obs/wrist_cam": _images(rng, length, size, size, 3),
                "states/articulation/robot/joint_position": _floats(rng, length, 9),
                "initial_state/articulation/robot/root_pose": _floats(rng, 1, 7),
            }
            for name, values in arrays.items():
                demo.create_dataset(name, data=values, compression="gzip")
    return path


def robomimic(path: Path, lengths: Sequence[int] = (6, 3, 5), seed: int = 1) -> Path:
    """As dataset_states_to_obs.py and split_train_val.py write it: float64 numbers, images of two sizes, masks."""
    import h5py

    rng = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = json.dumps(ROBOMIMIC_ARGS, indent=4)
        for number, length in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = "<mujoco/>"
            arrays: dict[str, Any] = {
                "actions": rng.uniform(-1, 1, (length, 7)),
                "states": rng.normal(size=(length, 32)),
                "rewards": np.eye(1, length, length - 1)[0],
                "dones": np.eye(1, length, length - 1, dtype=np.int64)[0],
                "obs/agentview_image": _images(rng, length, 10, 14, 3),
                "obs/robot0_eye_in_hand_image": _images(rng, length, 8, 8, 3),
                "obs/robot0_eef_pos": rng.normal(size=(length, 3)),
                "obs/robot0_gripper_qpos": rng.normal(size=(length, 2)),
                "next_obs/robot0_eef_pos": rng.normal(size=(length, 3)),
            }
            for name, values in arrays.items():
                demo.create_dataset(name, data=values, compression="gzip" if name.startswith("obs") else None)
        names = [f"demo_{number}".encode() for number in range(len(lengths))]
        file.create_dataset("mask/train", data=np.array(names[:-1]))
        file.create_dataset("mask/valid", data=np.array(names[-1:]))
    return path


def _floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def _images(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, np.uint8)
