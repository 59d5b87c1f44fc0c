from __future__ import annotations

import json
from dataclasses import asdict

from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.description import checkpoint_config, config_digest
from rlinf_isaac.data.lerobot_reader import LeRobotDataset


def test_with_and_without_its_dataset_the_same_is_said(small_dataset):
    """The task's own prompt, rate and layouts are those its demonstrations carry; only the environment is unknown."""
    config = small_config()
    known = json.loads(json.dumps(checkpoint_config(config, LeRobotDataset(small_dataset))))
    assumed = json.loads(json.dumps(checkpoint_config(config)))
    assert known["env"]["task"] == config.env.task
    assert assumed == known | {"env": None}


def test_it_is_what_a_trained_checkpoint_carries(small_checkpoints, small_dataset):
    bundle = read_bundle(small_checkpoints / "2")
    config = small_config()
    assert bundle.config == json.loads(json.dumps(checkpoint_config(config, LeRobotDataset(small_dataset))))
    assert bundle.config["job"] == json.loads(json.dumps(asdict(config)))
    assert bundle.lineage["config"] == config_digest(config)


def test_the_digest_is_of_the_training_alone():
    assert config_digest(small_config()) == config_digest(small_config(["eval.episodes=3", "env.max_episode_steps=16"]))
    assert config_digest(small_config()) != config_digest(small_config(["sft.lr=1e-5"]))
    assert config_digest(small_config()) != config_digest(small_config(["policy.denoise_steps=3"]))
