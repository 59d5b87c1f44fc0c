"""RLinf's config of a job: our own YAML, what the job says, the user's overrides; checked, resolved, frozen.

Nothing is inherited from RLinf's configs, whose keys and groups move between releases. What RLinf would assert after
Ray has started, and some of what it never checks, is checked here, before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.base import EvaluationJob, SftJob
from rlinf_isaac.envs.contract import TASKS
from rlinf_isaac.errors import InvalidJob, Problem

CONFIGS = Path(__file__).parent / "configs"

OURS = (
    "runner.ckpt_path",
    "runner.resume_dir",
    "rollout.model.model_path",
    "rollout.model.job",
    "actor.model.model_path",
    "actor.model.job",
    "env.eval.init_params.job",
    "env.train.init_params.job",
    "runner.logger.log_path",
    "data.train_data_paths",
    "actor.model.norm_stats",
)
"""Keys that are the job's business: another value would make it another job than the one that is recorded."""


def evaluation_config(job: EvaluationJob, directory: Path, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of an evaluation whose results go to `directory`.

    Raises:
        InvalidJob: an override is unknown or not allowed, or values do not fit each other.
    """
    config = job.config
    slots = min(config.eval.num_envs, config.eval.episodes)
    values = {
        "runner": {"logger": {"log_path": str(directory)}},
        "env": {"eval": _environment(config, slots, video=config.eval.videos > 0)},
        "rollout": {"model": _model(config, job.bundles[0].path)},
    }
    return compose("eval", values, overrides)


def sft_config(
    job: SftJob, norm_stats: Path, results: Path, resume: Path | None, overrides: Sequence[str] = ()
) -> DictConfig:
    """The config of a fine-tuning.

    Args:
        job: what to train.
        norm_stats: file with the job's norm stats.
        results: where RLinf writes.
        resume: ``global_step_N`` to go on from.
        overrides: the user's.

    Raises:
        InvalidJob: an override is unknown or not allowed, or values do not fit each other.
    """
    config, sft = job.config, job.config.sft
    values = {
        "runner": {
            "max_steps": sft.steps,
            "save_interval": sft.save_interval,
            "resume_dir": None if resume is None else str(resume),
            "logger": {"log_path": str(results)},
        },
        "data": {"train_data_paths": str(job.dataset)},
        "actor": {
            "global_batch_size": sft.batch_size,
            "seed": sft.seed,
            "model": _model(config, None) | {"norm_stats": str(norm_stats)},
            "optim": {
                "lr": sft.lr,
                "adam_beta1": sft.beta1,
                "adam_beta2": sft.beta2,
                "weight_decay": sft.weight_decay,
                "clip_grad": sft.clip_grad_norm,
                "lr_warmup_steps": sft.warmup_steps,
                "min_lr_rate": sft.final_lr_ratio,
            },
        },
    }
    return compose("sft", values, overrides)


def compose(task: str, values: Mapping[str, Any], overrides: Sequence[str] = ()) -> DictConfig:
    """``configs/<task>.yaml`` with `values` and `overrides`, checked and resolved."""
    config = OmegaConf.merge(OmegaConf.load(CONFIGS / f"{task}.yaml"), values)
    OmegaConf.set_struct(config, True)
    problems = []
    for item in overrides:
        problems += _override(config, item)
    if problems:
        raise InvalidJob(problems)
    OmegaConf.resolve(config)
    assert isinstance(config, DictConfig)
    if problems := check(config):
        raise InvalidJob(problems)
    return config


def check(config: DictConfig) -> list[Problem]:
    """What RLinf asserts after Ray has started, and what it leaves to chance."""
    problems = []
    if "actor" in config and config.actor.global_batch_size % config.actor.micro_batch_size:
        sizes = (
            f"{config.actor.global_batch_size} is no multiple of actor.micro_batch_size {config.actor.micro_batch_size}"
        )
        problems.append(Problem("rlinf-batch-split", f"actor.global_batch_size {sizes}", "choose one that divides it"))
    model = config.rollout.model if config.runner.get("only_eval") else config.actor.model
    chunk = model.num_action_chunks
    stages = config.rollout.pipeline_stage_num if "rollout" in config else 1
    for name, env in (config.get("env") or {}).items():
        if not isinstance(env, DictConfig):
            continue
        epoch, episode, envs = env.max_steps_per_rollout_epoch, env.max_episode_steps, env.total_num_envs
        for key, steps in (("max_steps_per_rollout_epoch", epoch), ("max_episode_steps", episode)):
            if steps % chunk:
                below = steps - steps % chunk
                cause = f"env.{name}.{key} {steps} is no multiple of the action chunk {chunk}"
                cure = f"use {below or ''}{' or ' if below else ''}{below + chunk}"
                problems.append(Problem("rlinf-steps-chunk", cause, cure))
        if epoch < episode:
            cause = f"env.{name}.max_steps_per_rollout_epoch {epoch} ends before an episode of {episode} steps can"
            cure = "RLinf would report no episode and exit well; raise it to max_episode_steps"
            problems.append(Problem("rlinf-short-epoch", cause, cure))
        if envs % stages or (envs // stages) % env.group_size:
            cause = (
                f"env.{name}.total_num_envs {envs} does not divide into {stages} stages of groups of {env.group_size}"
            )
            problems.append(Problem("rlinf-env-split", cause, "choose a number that both divide"))
    return problems


def _override(config: DictConfig, item: str) -> list[Problem]:
    """Apply one ``key=value``; what is wrong with it."""
    key, separator, _ = item.partition("=")
    if not separator or not key:
        return [Problem("bad-override", f"'{item}' is not KEY=VALUE", "write e.g. rollout.pipeline_stage_num=2")]
    if key.startswith(OURS):
        cause = f"{item} would run something else than what is recorded"
        return [
            Problem("rlinf-not-overridable", cause, "choose the checkpoint, the job and --output on the command line")
        ]
    try:
        change = OmegaConf.from_dotlist([item])
        config.merge_with(change)
    except (ValueError, YAMLError, OmegaConfBaseException) as error:
        cause = f"'{item}': {' '.join(str(error).split())[:200]}"
        return [Problem("rlinf-unknown-key", cause, f"the keys are those of {CONFIGS.name}/*.yaml of the RLinf engine")]
    return []


def _environment(config: JobConfig, envs: int, *, video: bool) -> dict[str, Any]:
    prompt = TASKS[config.env.task].prompt
    return {
        "total_num_envs": envs,
        "max_episode_steps": config.env.max_episode_steps,
        "video_cfg": {"save_video": video},
        "init_params": {"task_description": prompt, "job": asdict(config)},
    }


def _model(config: JobConfig, path: Path | None) -> dict[str, Any]:
    return {
        "model_path": None if path is None else str(path),
        "num_action_chunks": config.policy.action_chunk,
        "action_dim": config.policy.env_action_dim,
        "num_steps": config.policy.denoise_steps,
        "job": asdict(config),
    }
