"""Makes RLinf's config of an evaluation, a fine-tuning or a reinforcement learning: its values come from the job.

`compose` merges these values into this project's YAML files. Options of a job that RLinf does not support are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.engines.base import EvaluationJob, RlJob, SftJob
from rlinf_isaac.engines.rlinf.compose import compose
from rlinf_isaac.ground.errors import InvalidJob, Problem


def evaluation_config(
    job: EvaluationJob, directory: Path, overrides: Sequence[str] = (), *, lane: int | None = None
) -> DictConfig:
    """The config of an evaluation.

    Args:
        job: the evaluation.
        directory: directory for RLinf's results.
        overrides: the user's overrides.
        lane: number of this driver among several; it selects the accelerator or node. None for a single driver.

    Raises:
        InvalidJob: an override is unknown or not allowed, or values do not fit each other.
    """
    config = job.config
    slots = min(config.eval.num_envs, config.eval.episodes)
    values = {
        "lane": lane,
        "runner": {"logger": {"log_path": str(directory)}},
        "env": {"eval": _environment(config, slots) | {"video_cfg": {"save_video": config.eval.videos > 0}}},
        "rollout": {"model": _model(config, job.bundles[0].path)},
    }
    return compose("eval", values, overrides)


def sft_config(
    job: SftJob, norm_stats: Path, results: Path, resume: Path | None, overrides: Sequence[str] = ()
) -> DictConfig:
    """The config of a fine-tuning.

    Args:
        job: the fine-tuning.
        norm_stats: file with the job's norm stats.
        results: directory for RLinf's results.
        resume: ``global_step_N`` to resume from, or None.
        overrides: the user's overrides.

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
            **({"micro_batch_size": sft.micro_batch} if sft.micro_batch else {}),
            "seed": sft.seed,
            "model": _model(config, None) | {"norm_stats": str(norm_stats), "base": _base(job)},
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
    return compose("sft", values, overrides, _unsupported_sft(job))


def rl_config(job: RlJob, results: Path, resume: Path | None, overrides: Sequence[str] = ()) -> DictConfig:
    """The config of reinforcement learning from one checkpoint; `results` and `resume` as in `sft_config`.

    RLinf plays a fixed number of action chunks per iteration, the local engine a fixed number of episodes. Here the
    number of chunks is the largest that these episodes can have; an environment starts new seeds until it is reached.

    Raises:
        InvalidJob: an override is unknown or not allowed, values do not fit each other, or RLinf does not support an
            option of the job.
    """
    config, rl = job.config, job.config.rl
    if problems := _unsupported(config):
        raise InvalidJob(problems)
    chunks = config.env.max_episode_steps // config.policy.action_chunk
    epochs = -(-rl.episodes // rl.num_envs)
    rows = rl.num_envs * chunks * epochs
    batch = _divisor(rows, rl.minibatch * rl.accumulate or rows)
    eval_envs = min(rl.num_envs, rl.eval_episodes)
    done = int(resume.name.removeprefix("global_step_")) if resume else 0
    train = _environment(config, rl.num_envs, seeds=[rl.first_seed + done * rows, 0])
    held_out = _environment(config, eval_envs, seeds=[rl.eval_first_seed, rl.eval_episodes])
    values = {
        "runner": {
            "max_steps": rl.iterations,
            "val_check_interval": rl.eval_interval or -1,
            "save_interval": rl.save_interval,
            "resume_dir": None if resume is None else str(resume),
            "logger": {"log_path": str(results)},
        },
        "algorithm": {
            "update_epoch": rl.epochs,
            "clip_ratio_high": rl.clip_ratio,
            "clip_ratio_c": rl.dual_clip,
            "value_clip": rl.value_clip,
            "huber_delta": rl.huber_delta,
            "gamma": rl.gamma,
            "gae_lambda": rl.gae_lambda,
        },
        "env": {
            "train": train | {"rollout_epoch": epochs},
            "eval": held_out | {"rollout_epoch": -(-rl.eval_episodes // eval_envs)},
        },
        "actor": {
            "global_batch_size": batch,
            "micro_batch_size": _divisor(batch, rl.minibatch),
            "seed": rl.seed,
            "model": _model(config, job.start.path),
            "optim": {
                "lr": rl.lr,
                "value_lr": rl.value_lr,
                "adam_beta1": rl.beta1,
                "adam_beta2": rl.beta2,
                "weight_decay": rl.weight_decay,
                "clip_grad": rl.clip_grad_norm,
                "lr_warmup_steps": rl.lr_warmup,
                "critic_warmup_steps": rl.warmup_iterations * rl.epochs * (rows // batch),
            },
        },
    }
    return compose("rl", values, overrides)


def _unsupported(config: JobConfig) -> list[Problem]:
    rl = config.rl
    wanted = {
        "rl.algorithm=grpo": rl.algorithm == "grpo",
        "rl.target_kl": rl.target_kl > 0,
        "rl.entropy_bonus": rl.entropy_bonus > 0,
    }
    problems = [
        Problem(
            "rlinf-unsupported", f"{what} is not available with --engine rlinf", "use --engine local, or leave it out"
        )
        for what, asked in wanted.items()
        if asked
    ]
    if rl.eval_interval and rl.save_interval % rl.eval_interval:
        cause = f"rl.save_interval {rl.save_interval} is no multiple of rl.eval_interval {rl.eval_interval}"
        problems.append(Problem("rlinf-intervals", cause, "make it a multiple: RLinf saves only when it evaluates"))
    return problems


def _unsupported_sft(job: SftJob) -> list[Problem]:
    problems, compute = [], job.config.compute
    if job.mixed_with:
        cause = f"--dataset names {len(job.datasets)} datasets, but sft --engine rlinf trains on one"
        problems.append(Problem("rlinf-unsupported", cause, "name one dataset, or use --engine local"))
    if compute.dtype != "float32":
        cause = f"compute.dtype is {compute.dtype}, but sft --engine rlinf trains float32 parameters"
        problems.append(Problem("rlinf-unsupported", cause, "add compute.dtype=float32 to --overrides"))
    if compute.num_processes > 1:
        cause = f"compute.num_processes={compute.num_processes} is not available with --engine rlinf"
        problems.append(Problem("rlinf-unsupported", cause, "leave it out: RLinf trains on all GPUs of its cluster"))
    sft = job.config.sft
    wanted = {
        "trainable=all": sft.trainable != "all",
        "train_vision=true": sft.trainable == "all" and not sft.train_vision,
        "ema_decay=0": sft.ema_decay > 0,
        "decay_steps=0": sft.decay_steps not in (0, sft.steps),
    }
    for need in (need for need, otherwise in wanted.items() if otherwise):
        cause = f"sft --engine rlinf trains only with sft.{need}"
        problems.append(Problem("rlinf-unsupported", cause, f"add sft.{need} to --overrides, or use --engine local"))
    return problems


def _divisor(total: int, limit: int) -> int:
    """The largest divisor of `total` that is at most `limit`."""
    return next(size for size in range(min(total, limit), 0, -1) if total % size == 0)


def _environment(config: JobConfig, envs: int, *, seeds: list[int] | None = None) -> dict[str, Any]:
    prompt = task_of(config).prompt(0)
    return {
        "total_num_envs": envs,
        "max_episode_steps": config.env.max_episode_steps,
        "init_params": {"task_description": prompt, "job": config.as_dict(), "seeds": seeds},
    }


def _base(job: SftJob) -> str | None:
    return None if job.base is None else str(job.base.named.path)


def _model(config: JobConfig, path: Path | None) -> dict[str, Any]:
    return {
        "model_path": None if path is None else str(path),
        "num_action_chunks": config.policy.action_chunk,
        "action_dim": config.policy.env_action_dim,
        "num_steps": config.policy.denoise_steps,
        "job": config.as_dict(),
    }
