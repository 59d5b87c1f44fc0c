"""A dataset of uneven episodes, and its statistics."""

from __future__ import annotations

import numpy as np
import pytest

from rlinf_isaac.data.lerobot.format import ACTION, STATE, vector_feature
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import NormStats, compute_norm_stats

FEATURES = {STATE: vector_feature(["x", "y", "z"]), ACTION: vector_feature(["dx", "gripper"])}


@pytest.fixture
def dataset(tmp_path, random_episodes, write_v21) -> LeRobotDataset:
    """298 frames; the second action is a gripper command with two values."""
    episodes = random_episodes([40, 7, 160, 1, 90], features=FEATURES)
    for episode in episodes:
        episode[ACTION][:, 1] = np.sign(episode[ACTION][:, 1])
    return LeRobotDataset(write_v21(tmp_path / "data", episodes, features=FEATURES))


@pytest.fixture
def stats(dataset) -> NormStats:
    return compute_norm_stats(dataset, 10)
