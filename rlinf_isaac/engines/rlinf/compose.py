"""Composes RLinf's config of a job from this project's YAML files, the job, and the user's overrides, and checks it.

Nothing is inherited from RLinf's own configs, because their keys and groups change between releases. Conditions that
RLinf asserts only after Ray has started, and some that it never checks, are checked here before anything starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlinf_isaac.ground.errors import InvalidJob, Problem

CONFIGS = Path(__file__).parent / "configs"

OURS = (
    "lane",
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
    "actor.model.base",
)
"""Keys set by the job. Overriding them is refused, because the recorded job would no longer describe the run."""


def compose(
    task: str, values: Mapping[str, Any], overrides: Sequence[str] = (), known: Sequence[Problem] = ()
) -> DictConfig:
    """Merge ``configs/<task>.yaml``, `values` and `overrides`, check and resolve them. `known` problems are raised with
    those of the overrides."""
    config = OmegaConf.merge(OmegaConf.load(CONFIGS / f"{task}.yaml"), values)
    assert isinstance(config, DictConfig)
    OmegaConf.set_struct(config, True)
    problems = list(known)
    for item in overrides:
        problems += _override(config, item)
    if problems:
        raise InvalidJob(problems)
    OmegaConf.resolve(config)
    if problems := check(config):
        raise InvalidJob(problems)
    return config


def check(config: DictConfig) -> list[Problem]:
    """Problems that RLinf would report only after Ray has started, or never."""
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
            cure = "raise it to max_episode_steps; RLinf would report no episode and exit with success"
            problems.append(Problem("rlinf-short-epoch", cause, cure))
        if envs % stages or (envs // stages) % env.group_size:
            cause = (
                f"env.{name}.total_num_envs {envs} does not divide into {stages} stages"
                f" (rollout.pipeline_stage_num) of groups of {env.group_size} (group_size)"
            )
            problems.append(Problem("rlinf-env-split", cause, "choose a number that is a multiple of both"))
    return problems


def _override(config: DictConfig, item: str) -> list[Problem]:
    """Apply one ``key=value``; returns its problems."""
    key, separator, _ = item.partition("=")
    if not separator or not key:
        return [Problem("bad-override", f"'{item}' is not KEY=VALUE", "write e.g. rollout.pipeline_stage_num=2")]
    if key.startswith(OURS):
        cause = f"{item} would make the run differ from the recorded job"
        return [Problem("rlinf-not-overridable", cause, "set the checkpoint, the job and --output on the command line")]
    try:
        change = OmegaConf.from_dotlist([item])
        config.merge_with(change)
    except (ValueError, YAMLError, OmegaConfBaseException) as error:
        cause = f"'{item}': {' '.join(str(error).split())[:200]}"
        return [Problem("rlinf-unknown-key", cause, f"the keys are those of {CONFIGS.name}/*.yaml of the RLinf engine")]
    return []
