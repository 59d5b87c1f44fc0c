"""Which settings of a fine-tuning come from its base, and which from the task."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from rlinf_isaac.checkpoint.foreign.base import FoundBase, Named, find_base
from rlinf_isaac.checkpoint.foreign.base_config import check_differences, config_from_base
from rlinf_isaac.config import load_config
from rlinf_isaac.pi0.layout import TIED, state_dict_shapes

ALOHA = """
name: fold
robot: aloha
prompt: dataset
control_hz: 50
state: {dims: 14}
action: {dims: 14, delta: "6,-1,6,-1"}
"""


@pytest.fixture
def base(tmp_path) -> FoundBase:
    """What lerobot leaves of a robot whose seven actions are all relative to the state."""
    root = tmp_path / "pretrained_model"
    root.mkdir()
    tied = {second for _, second in TIED}
    model = load_config("tiny").model
    shapes = {name: shape for name, shape in state_dict_shapes(model).items() if name not in tied}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, root / "model.safetensors")
    action = {"type": "ACTION", "shape": [7]}
    said = {
        "type": "pi05" if model.pi05 else "pi0",
        "use_relative_actions": True,
        "output_features": {"action": action},
    }
    (root / "config.json").write_text(json.dumps(said))
    return find_base(Named(root, "base"))


def test_the_task_decides_what_numbers_mean(base, tmp_path):
    file = tmp_path / "task.yaml"
    file.write_text(ALOHA)
    assert base.says["policy.delta_actions"] == "7"
    of_base = config_from_base(base, [])
    assert (of_base.policy.delta_actions, of_base.policy.env_action_dim) == ("7", 7)
    config = config_from_base(base, [f"env.task={file}"])
    assert (config.policy.delta_actions, config.policy.env_action_dim) == ("6,-1,6,-1", 14)
    assert config.policy.asset_id == "aloha"
    (warning,) = check_differences(base, config)
    assert warning.cause.startswith("policy.delta_actions is 6,-1,6,-1 in this job, 7 in the base")
    chosen = config_from_base(base, [f"env.task={file}", "policy.delta_actions=none"])
    assert chosen.policy.delta_actions == "none"
