"""Between a job config, a checkpoint bundle and a policy that can act."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.lerobot_format import ACTION, STATE
from rlinf_isaac.data.lerobot_reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import NormStats, from_json
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.policy import Pi0Policy, Processor
from rlinf_isaac.pi0.tokenizer import check_same, load_tokenizer


def checkpoint_config(config: JobConfig, dataset: LeRobotDataset) -> dict[str, Any]:
    """What a bundle's ``config.json`` says: the job, the tokenizer, and what the dataset fixed."""
    features = dataset.features
    provenance = dataset.provenance or {}
    return {
        "job": asdict(config),
        "tokenizer": load_tokenizer(config.policy, config.model).fingerprint,
        "prompts": dataset.tasks,
        "control_hz": dataset.fps,
        "state_names": features[STATE].names,
        "action_names": features[ACTION].names,
        "env": provenance.get("env"),
    }


def make_processor(config: JobConfig, norm_stats: NormStats) -> Processor:
    """The pre- and post-processing of `config` with these statistics."""
    return Processor(config.model, config.policy, norm_stats, load_tokenizer(config.policy, config.model))


def load_policy(bundle: Bundle, config: JobConfig) -> Pi0Policy:
    """The policy of a verified bundle: strict weights, its own norm stats, its own tokenizer.

    Raises:
        WeightsError: names or shapes differ from the architecture's.
        TokenizerError: the tokenizer at hand is not the one it was trained with.
    """
    processor = make_processor(config, from_json(bundle.norm_stats_bytes, str(bundle.path)))
    check_same(bundle.config["tokenizer"], load_tokenizer(config.policy, config.model).fingerprint)
    device = torch.device(config.compute.device)
    model = Pi0(config.model)
    load_weights(bundle, model)
    return Pi0Policy(model.to(device).eval(), processor, config.policy, device)
