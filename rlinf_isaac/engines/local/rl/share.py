"""What each of several processes that train together has of a job: environments, episodes and rows of a minibatch.

This module does not import torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rlinf_isaac.config.schema import JobConfig

if TYPE_CHECKING:
    from rlinf_isaac.engines.local.training.team import Team


def divided(config: JobConfig, processes: int) -> JobConfig:
    """The config of a training of a single process that plays and learns what one of several has of `config`."""
    if processes == 1:
        return config
    # Sizes that cannot be shared are refused by the preflight, which estimates the memory before it ends.
    sizes = {name: max(1, getattr(config.rl, name) // processes) for name in ("num_envs", "episodes", "minibatch")}
    compute = replace(config.compute, num_processes=1, sharding="replicate")
    return replace(config, rl=replace(config.rl, **sizes), compute=compute)


def share_of(config: JobConfig, team: Team) -> JobConfig:
    """`divided` for a process of `team`, on its own device.

    The processes of a machine with GPUs also share its CPUs, on which environments are simulated.
    """
    from rlinf_isaac.envs.host.crew import cpu_count

    if team.size == 1:
        return config
    processes = config.compute.env_processes
    if not processes and config.compute.device == "cuda":
        processes = max(1, cpu_count() // team.here)
    own, device = divided(config, team.size), str(team.device(config.compute.device))
    return replace(own, compute=replace(own.compute, device=device, env_processes=processes))
