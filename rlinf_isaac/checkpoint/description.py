"""What a bundle's ``config.json`` says of its checkpoint: the job it came from, and what the policy meets. No torch."""

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
"""What decides how fast a training is and nothing else, so that it may go on with another value."""


def config_digest(config: JobConfig | Mapping[str, Any], *, trained_by: str = "sft") -> str:
    """Digest of everything in a config that decides what training produces (not the evaluation, not paths).

    `trained_by` is ``sft`` or ``rl``; what came before an RL run is its parent bundle's to say.
    A config that was recorded is taken as it was recorded: keys that later releases added are not part of it.
    """
    sections = TRAINING_SECTIONS[trained_by]
    values = {key: value for key, value in flatten(config).items() if key.startswith(sections)}
    return json_digest({key: value for key, value in values.items() if key not in ONLY_SPEED})


def checkpoint_config(config: JobConfig, dataset: AnyDataset) -> dict[str, Any]:
    """The content of ``config.json`` of a checkpoint that the job `config` trained on `dataset`.

    Of a mixture, ``mixture`` has the digests of its datasets and their weights. What a dataset leaves unnamed is
    written down as an assumption (`facts`): dims without names are taken for those of ``policy.state_layout`` and of
    the environment's actions.

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
        digests = [each.digest for each in dataset.datasets]
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
        config: with what the checkpoint's own files say. The rest is a preset's, and listed as not known.
        dataset: what it was trained on; None where that is not known, and with it prompt, rate and layouts.
        stated: facts (`facts.FACTS`) whose value in `config` the checkpoint's files say.
        assumed: facts that a person says, with their values; ``state`` may be the name of a layout.

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
