"""Values of a job config: each alone (`config.rules`), and those that do not fit each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rlinf_isaac.config import flatten
from rlinf_isaac.config.fits import Misfit, check_architecture, check_chunk
from rlinf_isaac.config.keep import parse_keep
from rlinf_isaac.config.reads import acts, check_overrides
from rlinf_isaac.config.rules import out_of_range
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.delta_actions import check_delta_mask, parse_delta_mask
from rlinf_isaac.envs.stack_cube.backends import BACKENDS, check_renderer, check_task
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.pi0.tokenizer import TOKENIZER_CURE
from rlinf_isaac.preflight.rl_config import check_rl
from rlinf_isaac.tasks.adapters import find_adapter
from rlinf_isaac.tasks.task import KINDS

OF_OTHER_TASKS = (*KINDS[1:], "none")
"""What ``env.backend`` is in tasks that are not stack-cube."""


def check_config(config: JobConfig, form: str = "main", overrides: Sequence[str] = ()) -> list[Problem]:
    """Values out of range, in any section; and of the keys that a verb reads, values that do not fit each other.

    Args:
        config: of the job.
        form: of the verb, a key of `reads.FORMS`. What it does not read cannot keep it from working, and could not be
            mended on its command line.
        overrides: those among `config`; the ones that do nothing in this job are reported, too.
    """
    if config.suite:
        own = [check_config(replace(each, suite={}), form, overrides) for each in configs_of(config)]
        return list(dict.fromkeys(problem for problems in own for problem in problems))
    problems = check_overrides(form, overrides, config)
    problems += out_of_range(JobConfig, flatten(config))
    problems += _check_env(config)
    if problems:
        return problems
    checks = (_check_policy, _check_processes, _check_played, _check_keep, _check_lanes, _check_schedule, check_rl)
    misfits = [*check_architecture(config.model), *(misfit for check in checks for misfit in check(config))]
    return [problem for keys, problem in misfits if all(acts(form, key, config) for key in keys)]


def _check_env(config: JobConfig) -> list[Problem]:
    env = config.env
    if config.task:
        kind = config.task["env"]["kind"] if config.task["env"] else "none"
        cause, cure = f"env.backend is {env.backend}, the task {env.task} is played in {kind}", "leave it out"
        problems = [Problem("bad-value", cause, cure)] if env.backend != kind else []
        if env.renderer != "auto":
            cause = f"env.renderer is {env.renderer}, but the environment of {env.task} draws by itself"
            problems.append(Problem("bad-value", cause, cure))
        return problems
    if env.backend not in BACKENDS:
        if env.backend not in OF_OTHER_TASKS:
            return []  # its rule says so already
        cause = f"env.backend is {env.backend}, the task {env.task} is played in {' or '.join(BACKENDS)}"
        return [Problem("bad-value", cause, "leave it out, or choose one of these")]
    return check_renderer(env.backend, env.renderer) + check_task(env.backend, env.task)


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


def _check_keep(config: JobConfig) -> Iterator[Misfit]:
    measured = {
        "sft.keep": (config.sft.keep, config.sft.eval_interval or config.sft.val_episodes),
        "rl.keep": (config.rl.keep, config.rl.eval_interval),
    }
    cures = {
        "sft.keep": "set sft.eval_interval (episodes) or sft.val_episodes (loss), or leave best out",
        "rl.keep": "set rl.eval_interval, or leave best out",
    }
    for key, (text, known) in measured.items():
        if parse_keep(text).best and not known:
            cause = f"{key} is {text}, but nothing measures which checkpoint is the best"
            yield (key,), Problem("keep-unmeasured", cause, cures[key])


def _check_lanes(config: JobConfig) -> Iterator[Misfit]:
    if config.compute.lanes < 2:
        return
    workers = 1 if config.compute.device.startswith("cuda") else config.rl.workers
    sizes = {
        "eval.num_envs": min(config.eval.num_envs, config.eval.episodes),
        "sft.eval_episodes": min(config.eval.num_envs, config.sft.eval_episodes),
        "rl.num_envs": config.rl.num_envs // (workers * config.compute.num_processes),
    }
    for key, size in sizes.items():
        if size % 2:
            cause = f"compute.lanes is 2, but {size} environments play ({key})"
            problem = Problem("lanes", cause, "make their number even, or leave compute.lanes out")
            yield (key, "compute.lanes"), problem


def _check_schedule(config: JobConfig) -> Iterator[Misfit]:
    decay, warmup = config.sft.decay_steps, config.sft.warmup_steps
    if 0 < decay <= warmup:
        cause = f"sft.decay_steps {decay} counts the warm-up in, which has {warmup} steps (sft.warmup_steps)"
        problem = Problem("decay-warmup", cause, "make it larger, or 0 for all of sft.steps")
        yield ("sft.decay_steps", "sft.warmup_steps"), problem


def _check_policy(config: JobConfig) -> Iterator[Misfit]:
    policy, model = config.policy, config.model
    yield from check_chunk(policy, model)
    if rest := config.env.max_episode_steps % policy.action_chunk:
        below = config.env.max_episode_steps - rest
        above = below + policy.action_chunk
        cause = f"env.max_episode_steps {below + rest} is no multiple of policy.action_chunk {policy.action_chunk}"
        problem = Problem("steps-chunk", cause, f"use {below} or {above}" if below else f"use {above}")
        yield ("env.max_episode_steps", "policy.action_chunk"), problem
    task = task_of(config)
    size = task.state.dims
    if policy.env_action_dim != task.action.dims:
        cause = (
            f"policy.env_action_dim is {policy.env_action_dim}, an action of {task.name} has {task.action.dims} dims"
        )
        problem = Problem("action-dim", cause, "leave it out: the task decides it")
        yield ("policy.env_action_dim",), problem
    if task.action.dims > model.action_dim:
        cause = f"an action of {task.name} has {task.action.dims} dims, the model gives {model.action_dim}"
        yield ("model.action_dim",), Problem("action-dim", cause, "use a larger model.action_dim")
    try:
        find_adapter(task.adapt)
        problems = check_delta_mask(parse_delta_mask(policy.delta_actions), size, policy.env_action_dim)
    except InvalidJob as error:
        problems = list(error.problems)
    yield from ((("policy.delta_actions",), problem) for problem in problems)
    if size > model.action_dim:
        layout = f"the state of {task.name}" if config.task else f"state layout {policy.state_layout}"
        cause = f"{layout} has {size} dims, the model takes {model.action_dim}"
        cure = (
            "use a larger model.action_dim" if config.task else "use state_layout=proprio or a larger model.action_dim"
        )
        problem = Problem("state-dim", cause, cure)
        yield ("policy.state_layout", "model.action_dim"), problem
    if policy.tokenizer != "byte" and not Path(policy.tokenizer).is_file():
        cause = f"the tokenizer {policy.tokenizer} does not exist"
        problem = Problem("no-tokenizer", cause, TOKENIZER_CURE)
        yield ("policy.tokenizer",), problem
