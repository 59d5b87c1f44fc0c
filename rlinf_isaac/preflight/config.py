"""Values of a job config: ranges, and values that do not fit each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rlinf_isaac.config import flatten
from rlinf_isaac.config.reads import acts, check_overrides
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.delta_actions import check_delta_mask, parse_delta_mask
from rlinf_isaac.envs.stack_cube.contract import STATE_LAYOUTS, TASKS, state_names
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.preflight.rl_config import RULES as RL_RULES
from rlinf_isaac.preflight.rl_config import Misfit, check_rl

RENDERERS = {"mujoco": ("auto", "egl", "rays"), "isaaclab": ("auto", "newton")}
"""Backend -> its renderers."""
NORMS = ("auto", "zscore", "quantile")
SHARDING = ("auto", "replicate", "shard")
DTYPES = ("float32", "bfloat16")
TRAINABLE = ("all", "expert", "lora")

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
    "sft.micro_batch": _NOT_NEGATIVE,
    "sft.val_episodes": _NOT_NEGATIVE,
    "sft.val_frames": _POSITIVE,
    "sft.val_interval": _NOT_NEGATIVE,
    "sft.eval_interval": _NOT_NEGATIVE,
    "sft.eval_episodes": _POSITIVE,
    "sft.eval_first_seed": _NOT_NEGATIVE,
    "sft.decay_steps": _NOT_NEGATIVE,
    "sft.trainable": (f"one of {', '.join(TRAINABLE)}", lambda x: x in TRAINABLE),
    "sft.ema_decay": _FRACTION,
    "sft.lora.vlm_rank": _POSITIVE,
    "sft.lora.vlm_alpha": _POSITIVE,
    "sft.lora.expert_rank": _POSITIVE,
    "sft.lora.expert_alpha": _POSITIVE,
    "sft.loader_workers": _NOT_NEGATIVE,
    "sft.augment.crop": ("greater than 0, and 1 for all of the view", lambda x: 0 < x <= 1),
    "sft.augment.rotation_deg": _NOT_NEGATIVE,
    "sft.augment.shift": _FRACTION,
    "sft.augment.brightness": _FRACTION,
    "sft.augment.contrast": _FRACTION,
    "sft.augment.saturation": ("between 0 and 1", lambda x: 0 <= x <= 1),
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
    "env.backend": (f"one of {', '.join(RENDERERS)}", lambda x: x in RENDERERS),
    "env.task": (f"one of {', '.join(TASKS)}", lambda x: x in TASKS),
    "policy.state_layout": (f"one of {', '.join(STATE_LAYOUTS)}", lambda x: x in STATE_LAYOUTS),
    "policy.norm": (f"one of {', '.join(NORMS)}", lambda x: x in NORMS),
    "policy.denoise_steps": _POSITIVE,
    "policy.action_chunk": _POSITIVE,
    "policy.env_action_dim": ("7, the stack-cube action", lambda x: x == 7),
    "norm_stats.batch_size": _POSITIVE,
    "compute.threads": _NOT_NEGATIVE,
    "compute.num_processes": _POSITIVE,
    "compute.sharding": (f"one of {', '.join(SHARDING)}", lambda x: x in SHARDING),
    "compute.dtype": (f"one of {', '.join(DTYPES)}", lambda x: x in DTYPES),
    **RL_RULES,
}


def check_config(config: JobConfig, form: str = "main", overrides: Sequence[str] = ()) -> list[Problem]:
    """Values out of range, in any section; and of the keys that a verb reads, values that do not fit each other.

    Args:
        config: of the job.
        form: of the verb, a key of `reads.FORMS`. What it does not read cannot keep it from working, and could not be
            mended on its command line.
        overrides: those among `config`; the ones that do nothing in this job are reported, too.
    """
    problems = check_overrides(form, overrides, config)
    values = flatten(config)
    for key, (meaning, holds) in _RULES.items():
        value = values[key]
        finite = not isinstance(value, float) or math.isfinite(value)
        if not (finite and holds(value)):
            problems.append(Problem("bad-value", f"{key} is {value}", f"set it to {meaning}"))
    problems += _check_env(config)
    if problems:
        return problems
    checks = (_check_model, _check_policy, _check_processes, _check_played, _check_schedule, check_rl)
    misfits = [misfit for check in checks for misfit in check(config)]
    return [problem for keys, problem in misfits if all(acts(form, key, config) for key in keys)]


def _check_env(config: JobConfig) -> list[Problem]:
    problems = []
    backend, choices = config.env.backend, RENDERERS.get(config.env.backend)
    if choices and config.env.renderer not in choices:
        cause = f"env.renderer is {config.env.renderer}"
        problems.append(Problem("bad-value", cause, f"with env.backend={backend} choose one of {', '.join(choices)}"))
    if backend == "isaaclab" and config.env.task != "stack3":
        cause = f"env.task is {config.env.task}, IsaacLab's task has three cubes"
        problems.append(Problem("isaaclab-task", cause, "set env.task=stack3"))
    return problems


def _check_processes(config: JobConfig) -> Iterator[Misfit]:
    size, count = config.sft.batch_size, config.compute.num_processes
    if size % count:
        cause = f"sft.batch_size {size} is no multiple of compute.num_processes {count}"
        problem = Problem("batch-processes", cause, "choose one that divides it: all have the same share")
        yield ("sft.batch_size", "compute.num_processes"), problem
    if count > 1 and config.compute.device not in ("cpu", "cuda"):
        cause = f"compute.device is {config.compute.device}, but compute.num_processes {count}"
        problem = Problem("processes-device", cause, "set it to cuda, for a GPU each, or cpu")
        yield ("compute.device", "compute.num_processes"), problem


def _check_played(config: JobConfig) -> Iterator[Misfit]:
    sft = config.sft
    if sft.save_interval > 0 and sft.eval_interval % sft.save_interval:
        cause = f"sft.eval_interval {sft.eval_interval} is no multiple of sft.save_interval {sft.save_interval}"
        problem = Problem("eval-interval", cause, "choose one: it is checkpoints that play")
        yield ("sft.eval_interval", "sft.save_interval"), problem


def _check_schedule(config: JobConfig) -> Iterator[Misfit]:
    decay, warmup = config.sft.decay_steps, config.sft.warmup_steps
    if 0 < decay <= warmup:
        cause = f"sft.decay_steps {decay} counts the warm-up in, which has {warmup} steps (sft.warmup_steps)"
        problem = Problem("decay-warmup", cause, "make it larger, or 0 for all of sft.steps")
        yield ("sft.decay_steps", "sft.warmup_steps"), problem


def _check_model(config: JobConfig) -> Iterator[Misfit]:
    model = config.model
    vision = model.vision
    if vision.image_size % vision.patch_size:
        cause = f"model.vision.image_size {vision.image_size} is no multiple of patch_size {vision.patch_size}"
        problem = Problem("patch-size", cause, "choose an image size that the patches tile")
        yield ("model.vision.image_size", "model.vision.patch_size"), problem
    if vision.width % vision.num_heads:
        cause = f"model.vision.width {vision.width} is no multiple of num_heads {vision.num_heads}"
        problem = Problem("vision-heads", cause, "choose a width that the heads divide")
        yield ("model.vision.width", "model.vision.num_heads"), problem
    for name in ("depth", "num_heads", "num_kv_heads", "head_dim"):
        left, right = getattr(model.vlm, name), getattr(model.expert, name)
        if left != right:
            cause = f"model.vlm.{name} is {left} but model.expert.{name} is {right}"
            problem = Problem("expert-shape", cause, "VLM and expert share attention: make them equal")
            yield (f"model.vlm.{name}", f"model.expert.{name}"), problem


def _check_policy(config: JobConfig) -> Iterator[Misfit]:
    policy, model = config.policy, config.model
    if policy.action_chunk > model.action_horizon:
        cause = f"policy.action_chunk {policy.action_chunk} exceeds model.action_horizon {model.action_horizon}"
        problem = Problem("chunk-horizon", cause, f"execute at most {model.action_horizon} actions of a chunk")
        yield ("policy.action_chunk", "model.action_horizon"), problem
    if rest := config.env.max_episode_steps % policy.action_chunk:
        below = config.env.max_episode_steps - rest
        above = below + policy.action_chunk
        cause = f"env.max_episode_steps {below + rest} is no multiple of policy.action_chunk {policy.action_chunk}"
        problem = Problem("steps-chunk", cause, f"use {below} or {above}" if below else f"use {above}")
        yield ("env.max_episode_steps", "policy.action_chunk"), problem
    size = len(state_names(policy.state_layout, TASKS[config.env.task].num_cubes))
    try:
        problems = check_delta_mask(parse_delta_mask(policy.delta_actions), size, policy.env_action_dim)
    except InvalidJob as error:
        problems = list(error.problems)
    yield from ((("policy.delta_actions",), problem) for problem in problems)
    if size > model.action_dim:
        cause = f"state layout {policy.state_layout} has {size} dims, the model takes {model.action_dim}"
        problem = Problem("state-dim", cause, "use state_layout=proprio or a larger model.action_dim")
        yield ("policy.state_layout", "model.action_dim"), problem
    if policy.tokenizer != "byte" and not Path(policy.tokenizer).is_file():
        cause = f"the tokenizer {policy.tokenizer} does not exist"
        problem = Problem("no-tokenizer", cause, "set policy.tokenizer to PaliGemma's SentencePiece model")
        yield ("policy.tokenizer",), problem
