"""Values of the config's section `rl` that must fit each other: sizes that divide, seeds that must not meet."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from rlinf_isaac.config.fits import Misfit
from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import Problem


def check_rl(config: JobConfig) -> Iterator[Misfit]:
    """Values of `rl` that do not fit each other or the other sections."""
    rl = config.rl
    on_gpu = config.compute.device.startswith("cuda")
    if rl.num_envs % rl.workers and not on_gpu:
        cause = f"rl.num_envs {rl.num_envs} cannot be spread over rl.workers {rl.workers}"
        yield ("rl.num_envs", "rl.workers"), Problem("rl-workers", cause, f"use a multiple of {rl.workers}")
    yield from _check_processes(config)
    if rl.algorithm == "grpo" and rl.episodes % rl.group_size:
        cause = f"rl.episodes {rl.episodes} makes no whole groups of rl.group_size {rl.group_size}"
        yield ("rl.episodes", "rl.group_size"), Problem("rl-groups", cause, f"use a multiple of {rl.group_size}")
    if rl.noise_steps > config.policy.denoise_steps:
        cause = f"rl.noise_steps {rl.noise_steps} exceeds policy.denoise_steps {config.policy.denoise_steps}"
        yield ("rl.noise_steps", "policy.denoise_steps"), Problem("rl-noise", cause, "use 0 for all of them")
    if rl.exploration == "flow_noise" and rl.noise_min >= rl.noise_max:
        cause = f"rl.noise_min {rl.noise_min} is not below rl.noise_max {rl.noise_max}"
        yield ("rl.noise_min", "rl.noise_max"), Problem("rl-noise", cause, "use RLinf's 0.08 and 0.16")
    if not on_gpu and rl.prefix_memory not in ("auto", "host", "none"):
        cause = f"rl.prefix_memory {rl.prefix_memory} is GPU memory, and compute.device is {config.compute.device}"
        problem = Problem("rl-prefix-memory", cause, "use auto, host or none")
        yield ("rl.prefix_memory", "compute.device"), problem
    if rl.target_success and rl.stop_at_target and not rl.eval_interval:
        cause = "rl.stop_at_target needs evaluations on held-out seeds, and rl.eval_interval 0 makes none"
        yield (
            ("rl.stop_at_target", "rl.eval_interval"),
            Problem("rl-target", cause, "set rl.eval_interval to 1 or more"),
        )
    yield from (((), problem) for problem in _check_seeds(config))


def _check_processes(config: JobConfig) -> Iterator[Misfit]:
    """Sizes of which every process must have the same share."""
    rl, count = config.rl, config.compute.num_processes
    if count == 1:
        return
    workers = 1 if config.compute.device.startswith("cuda") else rl.workers
    group = rl.group_size if rl.algorithm == "grpo" else 1
    for key, size, unit, keys in (
        ("rl.num_envs", rl.num_envs, count * workers, ("rl.workers",) if workers > 1 else ()),
        ("rl.episodes", rl.episodes, count * group, ("rl.group_size",) if group > 1 else ()),
        ("rl.minibatch", rl.minibatch, count, ()),
    ):
        if size % unit:
            words = "".join(f" with {getattr(rl, name.removeprefix('rl.'))} each ({name})" for name in keys)
            cause = f"{key} {size} cannot be spread over {count} processes (compute.num_processes){words}"
            problem = Problem("rl-processes", cause, f"use a multiple of {unit}")
            yield (key, *keys, "compute.num_processes"), problem


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
