"""What a bundle's ``config.json`` says of its checkpoint: the job it came from, and what the policy meets. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlinf_isaac.config import flatten
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.digest import json_digest
from rlinf_isaac.envs.contract import ACTION_NAMES, CONTROL_HZ, TASKS, state_names
from rlinf_isaac.pi0.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot_reader import LeRobotDataset

TRAINING_SECTIONS = {
    "sft": ("model.", "policy.", "sft.", "compute."),
    "rl": ("model.", "policy.", "rl.", "env.", "compute."),
}


def config_digest(config: JobConfig | Mapping[str, Any], *, trained_by: str = "sft") -> str:
    """Digest of everything in a config that decides what training produces (not the evaluation, not paths).

    `trained_by` is ``sft`` or ``rl``; what came before an RL run is its parent bundle's to say.
    A config that was recorded is taken as it was recorded: keys that later releases added are not part of it.
    """
    values = flatten(config)
    return json_digest({key: value for key, value in values.items() if key.startswith(TRAINING_SECTIONS[trained_by])})


def checkpoint_config(config: JobConfig, dataset: LeRobotDataset | None = None) -> dict[str, Any]:
    """The content of ``config.json``.

    Args:
        config: the job that trained the checkpoint.
        dataset: what it was trained on. Without it, prompt, rate and layouts are those of ``config.env.task`` and
            ``config.policy.state_layout``, and the environment of the data (``env``) is unknown.

    Raises:
        TokenizerError: the tokenizer cannot be read, so that its fingerprint is unknown.
    """
    return {
        "job": asdict(config),
        "tokenizer": load_tokenizer(config.policy, config.model).fingerprint,
        **(_of_task(config) if dataset is None else _of_dataset(dataset)),
    }


def _of_dataset(dataset: LeRobotDataset) -> dict[str, Any]:
    from rlinf_isaac.data.lerobot_format import ACTION, STATE

    return {
        "prompts": dataset.tasks,
        "control_hz": dataset.fps,
        "state_names": dataset.features[STATE].names,
        "action_names": dataset.features[ACTION].names,
        "env": (dataset.provenance or {}).get("env"),
    }


def _of_task(config: JobConfig) -> dict[str, Any]:
    task = TASKS[config.env.task]
    return {
        "prompts": {0: task.prompt},
        "control_hz": CONTROL_HZ,
        "state_names": state_names(config.policy.state_layout, task.num_cubes),
        "action_names": list(ACTION_NAMES),
        "env": None,
    }
