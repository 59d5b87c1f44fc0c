"""The content of a bundle's ``config.json``: the job that trained the checkpoint, and the data it was trained on.

This module does not need torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlinf_isaac.checkpoint.facts import ASSUMED, FACTS, NOT_KNOWN, with_assumed
from rlinf_isaac.config import flatten
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.envs.stack_cube.contract import ACTION_NAMES, TASKS, state_names
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.pi0.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.data.mixture import AnyDataset

TRAINING_SECTIONS = {
    "sft": ("model.", "policy.", "sft.", "compute."),
    "rl": ("model.", "policy.", "rl.", "env.", "compute."),
}
ONLY_SPEED = ("sft.loader_workers",)
"""Keys that only change the speed of a training, so that it may be continued with another value."""


def config_digest(config: JobConfig | Mapping[str, Any], *, trained_by: str = "sft") -> str:
    """Digest of the part of a config that decides what training produces (not the evaluation, not paths).

    `trained_by` is ``sft`` or ``rl``. The training before an RL run is not included; its parent bundle records it.
    A recorded config is hashed as it was recorded: keys that later releases added are not part of it.
    """
    sections = TRAINING_SECTIONS[trained_by]
    values = {key: value for key, value in flatten(config).items() if key.startswith(sections)}
    return json_digest({key: value for key, value in values.items() if key not in ONLY_SPEED})


def checkpoint_config(config: JobConfig, dataset: AnyDataset) -> dict[str, Any]:
    """The content of ``config.json`` of a checkpoint that the job `config` trained on `dataset`.

    If `dataset` is a mixture, the entry ``mixture`` has the digests and the weights of its datasets. If a dataset does
    not name the dims of its states or actions, they are assumed to be those of ``policy.state_layout`` and of the
    environment's actions, and recorded as an assumption (`facts`).

    Raises:
        TokenizerError: the tokenizer cannot be read, so that its fingerprint is unknown.
    """
    from rlinf_isaac.data.mixture import Mixture

    described = {
        "job": asdict(config),
        "tokenizer": load_tokenizer(config.policy, config.model).fingerprint,
        **_of_dataset(dataset, config),
    }
    if isinstance(dataset, Mixture):
        digests = [part.digest for part in dataset.datasets]
        described["mixture"] = {"datasets": digests, "weights": list(dataset.weights)}
    return described


def foreign_config(
    config: JobConfig,
    dataset: LeRobotDataset | None = None,
    *,
    stated: Collection[str] = (),
    assumed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of ``config.json`` of a checkpoint that was trained elsewhere.

    Args:
        config: the job. Its values come from the checkpoint's own files; the remaining ones are a preset's, and are
            listed as not known.
        dataset: the data on which it was trained. If None, prompt, control rate and layouts are not known either.
        stated: names of the facts (`facts.FACTS`) whose value in `config` comes from the checkpoint's files.
        assumed: facts for which a person gave a value, with these values; ``state`` may be the name of a layout.

    Raises:
        TokenizerError: a tokenizer that is known or assumed cannot be read.
    """
    description: dict[str, Any] = {"job": asdict(config), "tokenizer": None}
    if dataset is None:
        description |= {"prompts": None, "control_hz": None, "state_names": None, "action_names": None, "env": None}
    else:
        description |= _of_dataset(dataset, config)
    if "tokenizer" in stated:
        description["tokenizer"] = load_tokenizer(config.policy, config.model).fingerprint
    known = {*stated, *(() if dataset is None else ("prompt", "control_hz", "state", "actions"))}
    description[NOT_KNOWN] = [name for name in FACTS if name not in known]
    return with_assumed(description, description[NOT_KNOWN], assumed, config) if assumed else description


def _of_dataset(dataset: AnyDataset, config: JobConfig) -> dict[str, Any]:
    from rlinf_isaac.data.lerobot.format import ACTION, FRONT_IMAGE, STATE, WRIST_IMAGE

    features, env = dataset.features, (dataset.provenance or {}).get("env")
    names = {"state": features[STATE].dim_names, "actions": features[ACTION].dim_names}
    expected = {
        "state": state_names(config.policy.state_layout, TASKS[config.env.task].num_cubes),
        "actions": list(ACTION_NAMES),
    }
    described: dict[str, Any] = {
        "prompts": dataset.tasks,
        "control_hz": dataset.fps,
        "state_names": names["state"],
        "action_names": names["actions"],
        "env": env,
    }
    if unnamed := {name: expected[name] for name, own in names.items() if own is None}:
        described[ASSUMED] = unnamed
    if env is None:
        views = {"front": FRONT_IMAGE, "wrist": WRIST_IMAGE}
        described["images"] = {view: list(features[name].shape[:2]) for view, name in views.items() if name in features}
    return described
