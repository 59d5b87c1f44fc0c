from __future__ import annotations

import json
import shutil

from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.description import checkpoint_config, config_digest, foreign_config
from rlinf_isaac.checkpoint.facts import FACTS
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.envs.stack_cube.contract import ACTION_NAMES, state_names


def test_what_nobody_says_of_a_foreign_checkpoint_is_not_known():
    config = small_config()
    said = foreign_config(config, stated={"action_horizon"})
    assert said["not_known"] == [name for name in FACTS if name != "action_horizon"]
    for record in ("prompts", "control_hz", "state_names", "action_names", "tokenizer", "env"):
        assert said[record] is None
    assert said["job"] == config.as_dict()


def test_its_dataset_says_prompt_rate_and_layouts_of_a_foreign_checkpoint(small_dataset):
    config, dataset = small_config(), LeRobotDataset(small_dataset)
    own, foreign = checkpoint_config(config, dataset), foreign_config(config, dataset)
    unknown = foreign.pop("not_known")
    assert not {"prompt", "control_hz", "state", "actions"} & set(unknown)
    assert foreign == own | {"tokenizer": None}


def test_dims_without_names_are_an_assumption_of_the_checkpoint(small_dataset, tmp_path):
    root = tmp_path / "unnamed"
    shutil.copytree(small_dataset, root)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"] = ["state"]
    info["features"]["action"]["names"] = {"motors": list(ACTION_NAMES)}
    (root / "meta/info.json").write_text(json.dumps(info))
    said = checkpoint_config(small_config(), LeRobotDataset(root))
    assert said["state_names"] is said["action_names"] is None
    assert said["assumed"] == {"state": state_names("proprio+cubes", 2), "actions": list(ACTION_NAMES)}
    assert "assumed" not in checkpoint_config(small_config(), LeRobotDataset(small_dataset))


def test_it_is_what_a_trained_checkpoint_carries(small_checkpoints, small_dataset):
    bundle = read_bundle(small_checkpoints / "2")
    config = small_config()
    assert bundle.config == json.loads(json.dumps(checkpoint_config(config, LeRobotDataset(small_dataset))))
    assert bundle.config["job"] == json.loads(json.dumps(config.as_dict()))
    assert bundle.lineage["config"] == config_digest(config)


def test_the_digest_is_of_the_training_alone():
    assert config_digest(small_config()) == config_digest(small_config(["eval.episodes=3", "env.max_episode_steps=16"]))
    assert config_digest(small_config()) != config_digest(small_config(["sft.lr=1e-5"]))
    assert config_digest(small_config()) != config_digest(small_config(["policy.denoise_steps=3"]))
