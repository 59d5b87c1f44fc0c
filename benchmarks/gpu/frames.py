"""A dataset for measurements of the input and of the whole engine: the task's features and sizes, no content."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.lerobot.format import image_feature, vector_feature
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.envs.stack_cube.contract import ACTION_NAMES, state_names
from rlinf_isaac.tasks.registry import find_task

FRAMES = 330


@contextmanager
def frames(config: JobConfig) -> Iterator[Path]:
    """A directory with the dataset in ``data``; it is gone afterwards."""
    size, random = config.env.image_size, np.random.default_rng(0)
    images = [camera.dataset for camera in find_task(config.env.task).cameras.values()]
    features = {feature: image_feature(size, size) for feature in images}
    names = _names(config)
    features |= {"observation.state": vector_feature(names), "action": vector_feature(ACTION_NAMES)}
    directory = Path(tempfile.mkdtemp())
    try:
        with LeRobotWriter(directory / "data", fps=20, features=features, robot_type="franka") as writer:
            # A gradient with noise: compresses about as a rendered scene does.
            ramp = np.linspace(0, 200, size)[None, :, None, None] + random.integers(0, 8, (FRAMES, size, size, 3))
            columns = {feature: ramp.astype(np.uint8) for feature in images}
            columns["observation.state"] = random.normal(size=(FRAMES, len(names))).astype(np.float32)
            columns["action"] = random.normal(size=(FRAMES, 7)).astype(np.float32)
            writer.add_episode(columns, "Stack the cubes.")
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def unit_stats(config: JobConfig) -> bytes:
    """norm_stats.json that leaves every number as it is."""
    dims = {"state": len(_names(config)), "actions": len(ACTION_NAMES)}
    stats = {
        name: {"mean": [0.0] * dim, "std": [1.0] * dim, "q01": [-1.0] * dim, "q99": [1.0] * dim}
        for name, dim in dims.items()
    }
    return json.dumps({"norm_stats": stats}).encode()


def _names(config: JobConfig) -> list[str]:
    return list(state_names(config.policy.state_layout, 3))
