"""What each of several processes that train together has of a job: environments, episodes and rows of a minibatch."""

from __future__ import annotations

from dataclasses import replace

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.envs.host.crew import cpu_count


def share_of(config: JobConfig, team: Team) -> JobConfig:
    """The config of a training that plays and learns this process's share of `config` alone, on its own device.

    The processes of a machine with GPUs also share its CPUs, on which environments are simulated.
    """
    if team.size == 1:
        return config
    rl, compute, processes = config.rl, config.compute, config.compute.env_processes
    if not processes and compute.device == "cuda":
        processes = max(1, cpu_count() // (team.local_size or team.size))
    device = str(team.device(compute.device))
    parts = {name: getattr(rl, name) // team.size for name in ("num_envs", "episodes", "minibatch")}
    return replace(
        config,
        rl=replace(rl, **parts),
        compute=replace(compute, device=device, num_processes=1, sharding="replicate", env_processes=processes),
    )
