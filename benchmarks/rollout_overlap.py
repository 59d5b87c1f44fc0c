"""Environment steps per second of a rollout, and the share of the time in which the policy waits for environments.

    python benchmarks/rollout_overlap.py [--num-envs 16] [--processes 2]
    python benchmarks/rollout_overlap.py --preset pi0 --device cuda --num-envs 64 [--processes 16]

Plays stack2 in MuJoCo, in one run and in turns (round 1 of every case, then round 2, ...): with all environments in
this process; in processes; and in two lanes of processes, of which one steps while the policy samples for the other.
Weights are random, which costs as much as others do. What a first, short rollout compiles does not count. Wall time, so
on an idle machine; the median of the rounds is printed.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from rlinf_isaac.config import load_config, split_overrides
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.norm_stats import FeatureStats, NormStats
from rlinf_isaac.engines.policies import compiles
from rlinf_isaac.engines.rollout import Clock, rollout
from rlinf_isaac.envs.host.crew import cpu_count
from rlinf_isaac.envs.lanes import Lanes, make_lanes
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.policy import Pi0Policy, Processor
from rlinf_isaac.pi0.precision import to_precision
from rlinf_isaac.pi0.tokenizer import ByteTokenizer

Measured = tuple[float, float]
"""Environment steps per second, and the share of the time in which the policy waited."""


def random_policy(config: JobConfig) -> Pi0Policy:
    """A policy with random weights, whose actions are small: hardly a cube falls off the table."""
    with torch.device(config.compute.device):
        model = Pi0(config.model)
    initialise(model, seed=0)
    task = task_of(config)
    stats = NormStats(_stats(task.state.dims, 1.0), _stats(task.action.dims, 0.02))
    processor = Processor(config.model, config.policy, stats, ByteTokenizer())
    model = to_precision(model, config.compute.dtype).eval()
    return Pi0Policy(model, processor, config.policy, config.compute.device, compile=compiles(config.compute))


def _stats(dims: int, scale: float) -> FeatureStats:
    zeros, ones = np.zeros(dims), np.full(dims, scale)
    return FeatureStats(mean=zeros, std=ones, q01=-ones, q99=ones)


def play(lanes: Lanes, policy: Pi0Policy, seed: int) -> Measured:
    """One episode in every slot."""
    clock, seeds = Clock(), range(seed, seed + lanes.num_envs)
    steps = sum(episode.length for episode in rollout(lanes, policy, seeds, policy_seed=0, clock=clock))
    return steps / clock.wall, clock.wait_share


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num-envs", type=int, default=16, help="an even number")
    parser.add_argument("--processes", type=int, default=cpu_count(), help="of each lane; default: as many as CPUs")
    parser.add_argument("--calls", type=int, default=10, help="policy calls per episode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overrides", default="none", help="e.g. env.image_size=224")
    arguments = parser.parse_args()
    chosen = ["policy.tokenizer=byte", "env.task=stack2", f"compute.device={arguments.device}"]
    base = load_config(arguments.preset, [*chosen, *split_overrides(arguments.overrides)])
    chunk = base.policy.action_chunk
    if base.compute.threads:
        torch.set_num_threads(base.compute.threads)

    def environments(lanes: int, processes: int) -> Lanes:
        of_case = [f"compute.lanes={lanes}", f"compute.env_processes={processes}"]
        of_case.append(f"env.max_episode_steps={arguments.calls * chunk}")
        config = load_config(arguments.preset, [*chosen, *split_overrides(arguments.overrides), *of_case])
        return make_lanes(config, arguments.num_envs)

    processes = arguments.processes
    with ExitStack() as opened:
        policy = random_policy(base)
        cases = {
            "all in this process": environments(1, 1),
            f"{processes} processes": environments(1, processes),
            f"two lanes of {processes} processes": environments(2, processes),
        }
        for lanes in cases.values():
            opened.callback(lanes.close)
        for lanes in cases.values():
            play(lanes, policy, 0)
        rounds: dict[str, list[Measured]] = {name: [] for name in cases}
        for seed in range(1, arguments.rounds + 1):
            for name, lanes in cases.items():
                rounds[name].append(play(lanes, policy, seed * arguments.num_envs))
        renderer = cases["all in this process"].identity.renderer

    device = torch.cuda.get_device_name() if policy.device.type == "cuda" else "CPU"
    print(f"{arguments.preset} on {device}, {cpu_count()} CPUs, {arguments.rounds} rounds of {arguments.calls} calls")
    print(
        f"{arguments.num_envs} environments, chunks of {chunk} steps, images of {base.env.image_size} px by {renderer}"
    )
    table = Table()
    table.add_column("environments")
    for column in ("steps per second", "slowest and fastest", "policy waits"):
        table.add_column(column, justify="right")
    for name, measured in rounds.items():
        rates, shares = zip(*measured, strict=True)
        share = statistics.median(shares)
        table.add_row(name, f"{statistics.median(rates):.0f}", f"{min(rates):.0f}-{max(rates):.0f}", f"{share:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
