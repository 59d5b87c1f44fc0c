"""Values of the config's section `rl`: choices, sizes that must divide each other, seeds that must not meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

from rlinf_isaac.config.schema import JobConfig, RlConfig
from rlinf_isaac.ground.errors import Problem

Rule = tuple[str, Callable[[Any], bool]]
Misfit = tuple[tuple[str, ...], Problem]
"""Keys whose values do not fit each other, and how. A verb that does not read one of them is not concerned."""

_POSITIVE: Rule = ("greater than 0", lambda x: x > 0)
_NOT_NEGATIVE: Rule = ("0 or greater", lambda x: x >= 0)
_FRACTION: Rule = ("between 0 and 1", lambda x: 0 <= x < 1)
_SHARE: Rule = ("between 0 and 1", lambda x: 0 <= x <= 1)


def _choice(*names: str) -> Rule:
    return f"one of {', '.join(names)}", lambda x: x in names


RULES: dict[str, Rule] = {
    "rl.algorithm": _choice("ppo", "grpo"),
    "rl.exploration": _choice("flow_sde", "flow_noise"),
    "rl.reward": _choice("success", "shaped"),
    "rl.group_size": ("2 or more", lambda x: x >= 2),
    "rl.dual_clip": ("greater than 1", lambda x: x > 1),
    "rl.clip_ratio": ("between 0 and 1", lambda x: 0 < x < 1),
    "rl.value_widths": ("positive widths", lambda x: all(width > 0 for width in x)),
    **dict.fromkeys(("rl.gamma", "rl.gae_lambda"), _SHARE),
    **dict.fromkeys(("rl.beta1", "rl.beta2"), _FRACTION),
    **{
        f"rl.{name}": _POSITIVE
        for name in (
            *("noise_level", "noise_min", "noise_max", "iterations", "episodes", "num_envs", "workers"),
            *("lr", "value_lr"),
            *("clip_grad_norm", "epochs", "minibatch", "value_clip", "huber_delta", "save_interval", "eval_episodes"),
        )
    },
    **{
        f"rl.{name}": _NOT_NEGATIVE
        for name in (
            *(
                "noise_steps",
                "accumulate",
                "subtask_reward",
                "weight_decay",
                "warmup_iterations",
                "lr_warmup",
                "entropy_bonus",
                "target_kl",
            ),
            *("eval_interval", "seed", "first_seed", "eval_first_seed"),
        )
    },
}
"""What each value alone must be."""


def check_rl(config: JobConfig) -> Iterator[Misfit]:
    """Values of `rl` that do not fit each other or the other sections."""
    rl = config.rl
    if rl.num_envs % rl.workers:
        cause = f"rl.num_envs {rl.num_envs} cannot be spread over rl.workers {rl.workers}"
        yield ("rl.num_envs", "rl.workers"), Problem("rl-workers", cause, f"use a multiple of {rl.workers}")
    if rl.algorithm == "grpo" and rl.episodes % rl.group_size:
        cause = f"rl.episodes {rl.episodes} makes no whole groups of rl.group_size {rl.group_size}"
        yield ("rl.episodes", "rl.group_size"), Problem("rl-groups", cause, f"use a multiple of {rl.group_size}")
    if rl.noise_steps > config.policy.denoise_steps:
        cause = f"rl.noise_steps {rl.noise_steps} exceeds policy.denoise_steps {config.policy.denoise_steps}"
        yield ("rl.noise_steps", "policy.denoise_steps"), Problem("rl-noise", cause, "use 0 for all of them")
    if rl.exploration == "flow_noise" and rl.noise_min >= rl.noise_max:
        cause = f"rl.noise_min {rl.noise_min} is not below rl.noise_max {rl.noise_max}"
        yield ("rl.noise_min", "rl.noise_max"), Problem("rl-noise", cause, "use RLinf's 0.08 and 0.16")
    yield from (((), problem) for problem in _check_seeds(config))


def seed_ranges(config: JobConfig) -> dict[str, range]:
    """The reset seeds of everything that plays episodes, by the config key that begins them.

    Demonstrations skip seeds on which the expert fails, so theirs may reach a little further.
    """
    rl = config.rl
    return {
        "demos.first_seed": _from(config.demos.first_seed, config.demos.episodes),
        "eval.first_seed": _from(config.eval.first_seed, config.eval.episodes),
        "rl.eval_first_seed": _from(rl.eval_first_seed, rl.eval_episodes),
        "rl.first_seed": _from(rl.first_seed, rl.iterations * seeds_per_iteration(rl)),
    }


def seeds_per_iteration(rl: RlConfig) -> int:
    """Different reset seeds of one training iteration."""
    return rl.episodes // rl.group_size if rl.algorithm == "grpo" else rl.episodes


def _from(first: int, count: int) -> range:
    return range(first, first + count)


def _check_seeds(config: JobConfig) -> Iterator[Problem]:
    ranges = {key: seeds for key, seeds in seed_ranges(config).items() if seeds}
    for (key, seeds), (other, others) in combinations(ranges.items(), 2):
        if "rl." in key + other and max(seeds.start, others.start) < min(seeds.stop, others.stop):
            cause = (
                f"{key} gives the seeds {seeds.start} to {seeds.stop - 1}, {other} the seeds {others.start} to "
                f"{others.stop - 1}: what trains would also be tested"
            )
            yield Problem("rl-seeds", cause, "move one of them away")
