"""The content of a bundle's ``config.json``: the job that trained the checkpoint, and the data it was trained on.

This module does not need torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from rlinf_isaac.checkpoint.facts import ASSUMED, FACTS, NOT_KNOWN, with_assumed
from rlinf_isaac.config import flatten
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.config.task import task_of
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.pi0.tokenizer import load_tokenizer
from rlinf_isaac.tasks.task import OF_THE_MACHINE, Vector

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.data.mixture import AnyDataset

TRAINING_SECTIONS = {
    "sft": ("model.", "policy.", "sft.", "compute.", "task.", "suite."),
    "rl": ("model.", "policy.", "rl.", "env.", "compute.", "task.", "suite."),
}
OF_TASKS = "tasks"
"""Entry of a suite's ``config.json``: task -> what is known of its data."""
NO_PART_OF_IT = (
    *("sft.loader_workers", "compute.env_processes", "sft.keep", "rl.keep"),
    *(f"task.{key}" for key in OF_THE_MACHINE),
)
"""Keys with which a training may be continued under another value: they change its speed, or say where this machine has
something and what it keeps."""
NO_PART_OF_SFT = ("compute.lanes",)
"""In an `sft` they decide how episodes are rounded that measure it; in an `rl`, those that train."""


def config_digest(config: JobConfig | Mapping[str, Any], *, trained_by: str = "sft") -> str:
    """Digest of the part of a config that decides what training produces (not the evaluation, not paths).

    `trained_by` is ``sft`` or ``rl``. The training before an RL run is not included; its parent bundle records it.
    A recorded config is hashed as it was recorded: keys that later releases added are not part of it.
    """
    sections = TRAINING_SECTIONS[trained_by]
    values = {key: value for key, value in flatten(config).items() if key.startswith(sections)}
    return json_digest({key: value for key, value in values.items() if not _is_no_part(key, trained_by)})


def _is_no_part(key: str, trained_by: str) -> bool:
    """Whether a key is none of the training's, in the description of the task or of any task of a suite."""
    of_the_machine = tuple(f".{name}" for name in OF_THE_MACHINE)
    if trained_by == "sft" and key in NO_PART_OF_SFT:
        return True
    return key in NO_PART_OF_IT or (key.startswith("suite.") and key.endswith(of_the_machine))


def for_one_process(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job that a checkpoint records, for one that starts from it: the number of processes is not inherited."""
    return {**job, "compute": {**(job.get("compute") or {}), "num_processes": 1}}


def checkpoint_config(config: JobConfig, dataset: AnyDataset) -> dict[str, Any]:
    """The content of ``config.json`` of a checkpoint that the job `config` trained on `dataset`.

    If `dataset` is a mixture, the entry ``mixture`` has the digests and the weights of its datasets; of a suite, the
    entry `OF_TASKS` has what the other entries say of a single task, for each of them (`of_task`). If a dataset does
    not name the dims of its states or actions, they are assumed to be those of ``policy.state_layout`` and of the
    environment's actions, and recorded as an assumption (`facts`).

    Raises:
        TokenizerError: the tokenizer cannot be read, so that its fingerprint is unknown.
    """
    from rlinf_isaac.data.mixture import Mixture

    described: dict[str, Any] = {
        "job": config.as_dict(),
        "tokenizer": load_tokenizer(config.policy, config.model).fingerprint,
        **_of_dataset(dataset, config),
    }
    if config.suite:
        assert isinstance(dataset, Mixture)
        parts = zip(configs_of(config), dataset.datasets, strict=True)
        described[OF_TASKS] = {each.env.task: _of_dataset(part, each) for each, part in parts}
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
    description: dict[str, Any] = {"job": config.as_dict(), "tokenizer": None}
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
    features, env = dataset.features, (dataset.provenance or {}).get("env")
    task = task_of(config)
    vectors: dict[str, Vector] = {"state": task.state, "actions": task.action}
    names = {name: features[vector.dataset].dim_names for name, vector in vectors.items()}
    described: dict[str, Any] = {
        "prompts": dataset.tasks,
        "control_hz": dataset.fps,
        "state_names": names["state"],
        "action_names": names["actions"],
        "env": env,
    }
    # Of two that have no names, there is nothing to assume.
    unnamed = {
        name: list(vectors[name].names or ()) for name, own in names.items() if own is None and vectors[name].names
    }
    if unnamed:
        described[ASSUMED] = unnamed
    if env is None:
        cameras = [camera.dataset for camera in task.cameras.values() if camera.dataset in features]
        described["images"] = {name.rpartition(".")[2]: list(features[name].shape[:2]) for name in cameras}
    return described
