"""Every check that can fail a job, before anything heavy is imported: no torch, no simulator, well under two seconds.

Each function returns problems instead of raising, so that a verb can show all of them at once (`raise_if_any`).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.config import flatten
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.digest import bytes_digest
from rlinf_isaac.envs.contract import ACTION_NAMES, CONTROL_HZ, STATE_LAYOUTS, TASKS, state_names
from rlinf_isaac.errors import InvalidJob, Problem

RENDERERS = ("auto", "egl", "rays")
NORMS = ("auto", "zscore", "quantile")

_POSITIVE = ("greater than 0", lambda x: x > 0)
_NOT_NEGATIVE = ("0 or greater", lambda x: x >= 0)
_FRACTION = ("between 0 and 1", lambda x: 0 <= x < 1)
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "sft.lr": _POSITIVE,
    "sft.steps": _POSITIVE,
    "sft.batch_size": _POSITIVE,
    "sft.flow_samples": _POSITIVE,
    "sft.save_interval": _POSITIVE,
    "sft.log_interval": _POSITIVE,
    "sft.clip_grad_norm": _POSITIVE,
    "sft.warmup_steps": _NOT_NEGATIVE,
    "sft.weight_decay": _NOT_NEGATIVE,
    "sft.final_lr_ratio": ("between 0 and 1", lambda x: 0 <= x <= 1),
    "sft.beta1": _FRACTION,
    "sft.beta2": _FRACTION,
    "sft.seed": _NOT_NEGATIVE,
    "eval.episodes": _POSITIVE,
    "eval.num_envs": _POSITIVE,
    "eval.first_seed": _NOT_NEGATIVE,
    "eval.policy_seed": _NOT_NEGATIVE,
    "eval.videos": _NOT_NEGATIVE,
    "eval.video_size": ("an even number of pixels, 16 or more", lambda x: x >= 16 and x % 2 == 0),
    "demos.episodes": _POSITIVE,
    "demos.workers": _POSITIVE,
    "demos.first_seed": _NOT_NEGATIVE,
    "demos.noise": _NOT_NEGATIVE,
    "env.image_size": ("16 pixels or more", lambda x: x >= 16),
    "env.max_episode_steps": _POSITIVE,
    "env.backend": ("'mujoco'", lambda x: x == "mujoco"),
    "env.task": (f"one of {', '.join(TASKS)}", lambda x: x in TASKS),
    "env.renderer": (f"one of {', '.join(RENDERERS)}", lambda x: x in RENDERERS),
    "policy.state_layout": (f"one of {', '.join(STATE_LAYOUTS)}", lambda x: x in STATE_LAYOUTS),
    "policy.norm": (f"one of {', '.join(NORMS)}", lambda x: x in NORMS),
    "policy.denoise_steps": _POSITIVE,
    "policy.action_chunk": _POSITIVE,
    "policy.env_action_dim": ("7, the stack-cube action", lambda x: x == 7),
    "compute.threads": _NOT_NEGATIVE,
}


def raise_if_any(problems: Iterable[Problem]) -> None:
    """Raise `InvalidJob` with all of `problems`, if there are any."""
    problems = list(problems)
    if problems:
        raise InvalidJob(problems)


def check_config(config: JobConfig) -> list[Problem]:
    """Values out of range and values that do not fit each other, in any section."""
    problems = []
    values = flatten(config)
    for key, (meaning, holds) in _RULES.items():
        value = values[key]
        finite = not isinstance(value, float) or math.isfinite(value)
        if not (finite and holds(value)):
            problems.append(Problem("bad-value", f"{key} is {value}", f"set it to {meaning}"))
    return problems or [*_check_model(config), *_check_policy(config)]


def _check_model(config: JobConfig) -> list[Problem]:
    problems = []
    model = config.model
    vision = model.vision
    if vision.image_size % vision.patch_size:
        cause = f"model.vision.image_size {vision.image_size} is no multiple of patch_size {vision.patch_size}"
        problems.append(Problem("patch-size", cause, "choose an image size that the patches tile"))
    if vision.width % vision.num_heads:
        cause = f"model.vision.width {vision.width} is no multiple of num_heads {vision.num_heads}"
        problems.append(Problem("vision-heads", cause, "choose a width that the heads divide"))
    same = ("depth", "num_heads", "num_kv_heads", "head_dim")
    for name in same:
        left, right = getattr(model.vlm, name), getattr(model.expert, name)
        if left != right:
            cause = f"model.vlm.{name} is {left} but model.expert.{name} is {right}"
            problems.append(Problem("expert-shape", cause, "VLM and expert share attention: make them equal"))
    return problems


def _check_policy(config: JobConfig) -> list[Problem]:
    problems = []
    policy, model = config.policy, config.model
    if policy.action_chunk > model.action_horizon:
        cause = f"policy.action_chunk {policy.action_chunk} exceeds model.action_horizon {model.action_horizon}"
        problems.append(Problem("chunk-horizon", cause, f"execute at most {model.action_horizon} actions of a chunk"))
    if rest := config.env.max_episode_steps % policy.action_chunk:
        below = config.env.max_episode_steps - rest
        above = below + policy.action_chunk
        cause = f"env.max_episode_steps {below + rest} is no multiple of policy.action_chunk {policy.action_chunk}"
        problems.append(Problem("steps-chunk", cause, f"use {below} or {above}" if below else f"use {above}"))
    size = len(state_names(policy.state_layout, TASKS[config.env.task].num_cubes))
    if size > model.action_dim:
        cause = f"state layout {policy.state_layout} has {size} dims, the model takes {model.action_dim}"
        problems.append(Problem("state-dim", cause, "use state_layout=proprio or a larger model.action_dim"))
    if policy.tokenizer != "byte" and not Path(policy.tokenizer).is_file():
        cause = f"the tokenizer {policy.tokenizer} does not exist"
        problems.append(Problem("no-tokenizer", cause, "set policy.tokenizer to PaliGemma's SentencePiece model"))
    return problems


def check_free_space(directory: str | Path, needed_bytes: int) -> list[Problem]:
    """A problem when the file system of `directory` (or its nearest existing parent) lacks room."""
    path = Path(directory).absolute()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if free >= needed_bytes:
        return []
    cause = f"{path} has {free / 2**30:.1f} GiB free, the job needs about {needed_bytes / 2**30:.1f} GiB"
    return [Problem("disk-space", cause, "free some space or choose another --output")]


def check_dataset(config: JobConfig, root: Path) -> list[Problem]:
    """A LeRobot dataset against what the policy and the task expect; reads ``meta/`` only.

    Raises:
        DatasetError: ``meta/`` itself is damaged.
    """
    # pyarrow takes a moment; --help should not wait for it
    from rlinf_isaac.data.lerobot_format import ACTION, FRONT_IMAGE, STATE, WRIST_IMAGE
    from rlinf_isaac.data.lerobot_meta import read_meta

    meta = read_meta(root)
    task = TASKS[config.env.task]
    problems = []
    expected = {
        FRONT_IMAGE: None,
        WRIST_IMAGE: None,
        STATE: state_names(config.policy.state_layout, task.num_cubes),
        ACTION: list(ACTION_NAMES),
    }
    for name, names in expected.items():
        feature = meta.features.get(name)
        if feature is None:
            cause = f"{root} has no feature '{name}'; it has {', '.join(sorted(meta.features))}"
            cure = "convert the dataset to the names that RLinf's IsaacLab data config uses"
            problems.append(Problem("no-feature", cause, cure))
        elif names is not None and feature.shape != (len(names),):
            cause = f"{root}: feature '{name}' has shape {list(feature.shape)}, expected [{len(names)}]"
            cure = f"set env.task and policy.state_layout (now {task.name}, {config.policy.state_layout}) as recorded"
            problems.append(Problem("feature-dim", cause, cure))
        elif name == STATE and feature.names and list(feature.names) != names:
            cause = f"{root}: the state is {', '.join(feature.names)}, expected {', '.join(names or [])}"
            problems.append(Problem("state-layout", cause, "set policy.state_layout to the one of the dataset"))
    if meta.fps != CONTROL_HZ:
        cause = f"{root} was recorded at {meta.fps} Hz, the task is controlled at {CONTROL_HZ} Hz"
        problems.append(Problem("fps", cause, "resample the dataset; a policy at another rate moves at another speed"))
    for prompt in meta.tasks.values():
        if prompt != task.prompt:
            cause = f"{root} has the prompt {prompt!r}, the task {task.name} gives {task.prompt!r}"
            problems.append(Problem("prompt", cause, "set env.task to the one the dataset was recorded for"))
    return problems


def check_device(config: JobConfig) -> list[Problem]:
    """A CUDA device where there is no NVIDIA driver; found out without importing torch."""
    device = config.compute.device
    if device.split(":")[0] not in ("cpu", "cuda", "mps"):
        return [Problem("bad-value", f"compute.device is {device}", "set it to cpu, cuda, cuda:<n> or mps")]
    if device.startswith("cuda") and not Path("/proc/driver/nvidia").exists() and shutil.which("nvidia-smi") is None:
        cause = f"compute.device is {device}, but this machine has no NVIDIA driver"
        return [Problem("no-gpu", cause, "pass --device cpu, or --preset tiny which is made for it")]
    return []


def check_bundles(bundles: Sequence[Bundle]) -> list[Problem]:
    """Checkpoints of one sweep differ in nothing but their weights, and carry the norm stats they were trained with."""
    problems = []
    first = bundles[0]
    for bundle in bundles:
        trained_with, carried = bundle.lineage.get("norm_stats"), bytes_digest(bundle.norm_stats_bytes)
        if trained_with != carried:
            cause = f"{bundle.path} was trained with norm stats {trained_with}, but carries {carried}"
            problems.append(Problem("norm-stats-mismatch", cause, "take the bundle as `sft` wrote it"))
        for link in ("config", "dataset", "norm_stats"):
            if bundle.lineage.get(link) != first.lineage.get(link):
                cause = f"{bundle.path} and {first.path} were trained with different {link}"
                cure = "evaluate checkpoints of one training run together, others in a sweep of their own"
                problems.append(Problem("mixed-checkpoints", cause, cure))
    return problems
