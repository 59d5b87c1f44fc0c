"""What an iteration of reinforcement learning spends its time on.

    python benchmarks/rl_iteration.py --checkpoint result/isaaclab_openpi/sft/tiny-0123abcd/checkpoints/800

Plays and learns a few iterations from a checkpoint and prints, as means over all but the first (which also starts the
workers): environment steps and policy calls per second, and the share of environment, policy and update in an
iteration. Shares of the rollout are measured inside the workers; wall time, so on an idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config import build_config, load_config, split_overrides
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.ground.events import Metrics


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path)
    parser.add_argument("--preset", default="tiny", help="whose section rl is used")
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--overrides", default="none", help="e.g. rl.workers=4,rl.num_envs=64")
    arguments = parser.parse_args()

    start = read_bundle(arguments.checkpoint)
    overrides = [*split_overrides(arguments.overrides), f"rl.iterations={arguments.iterations}", "rl.eval_interval=0"]
    values = {**start.config["job"], "rl": asdict(load_config(arguments.preset).rl)}
    config = build_config(values, str(start.path), overrides)
    with tempfile.TemporaryDirectory() as directory:
        events = list(LocalEngine().rl(RlJob(config, start, Path(directory))))
    metrics = [event.values for event in events if isinstance(event, Metrics)][1:]

    def mean(name: str) -> float:
        return fmean(values[name] for values in metrics)

    rollout, update = mean("time/rollout_s"), mean("time/update_s")
    policy = mean("time/policy_share_of_rollout")
    rl = config.rl
    print(
        f"{rl.episodes} episodes in {rl.num_envs} environments, {rl.workers} workers, {mean('rollout/chunks'):.0f} "
        f"chunks x {mean('train/epochs'):.1f} epochs; one iteration {rollout + update:.1f} s"
    )
    print(f"environment steps per second   {mean('time/env_steps_per_second'):8.0f}  (during rollouts)")
    rows = rl.num_envs // rl.workers
    print(f"policy calls per second        {mean('time/policy_calls_per_second'):8.1f}  (of {rows} rows)")
    for name, seconds in {
        "environment": rollout * (1 - policy),
        "policy": rollout * policy,
        "update": update,
    }.items():
        print(f"{name:<12} {seconds:6.1f} s  {seconds / (rollout + update):5.0%}")


if __name__ == "__main__":
    main()
