"""The scripted expert along each axis of `eval --vary`. It acts on poses alone, so what only a camera sees must change
nothing: its episodes are then the same, step by step.

    python benchmarks/robustness.py [--episodes 100]
"""

from __future__ import annotations

import argparse

import numpy as np

from rlinf_isaac import api
from rlinf_isaac.config.vary_schema import VaryConfig
from rlinf_isaac.envs import make_env
from rlinf_isaac.stats.differences import paired_difference
from rlinf_isaac.stats.paired import PairedCounts
from rlinf_isaac.tasks.variation import AXES, Variation

SIDE_BY_SIDE = 25


def play(varied: Variation | None, seeds: range) -> dict[int, tuple[bool, int]]:
    """Seed -> whether the expert has solved it, and in how many control steps its episode ended."""
    config, found = api.load_config("tiny", ["env.image_size=16"]), {}
    env = make_env(config, SIDE_BY_SIDE, varied=varied)
    try:
        for first in range(0, len(seeds), SIDE_BY_SIDE):
            batch = [seeds[min(first + row, len(seeds) - 1)] for row in range(SIDE_BY_SIDE)]
            observation, active = env.reset(seed=batch)[0], np.ones(SIDE_BY_SIDE, bool)
            expert = env.expert()
            while active.any():
                actions = expert.act(observation, active)
                step = env.chunk_step(actions[:, None], active, images=False)
                observation, active = step.observation, active & ~(step.terminated | step.time_out)
            found |= dict(zip(batch, zip(step.success.tolist(), env.elapsed.tolist(), strict=True), strict=True))
    finally:
        env.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    seeds = range(5000, 5000 + parser.parse_args().episodes)
    control = play(None, seeds)
    print(f"usual    {sum(solved for solved, _ in control.values())} of {len(control)} solved")
    for axis in AXES:
        varied = play(Variation(axis, getattr(VaryConfig(), axis)), seeds)
        solved = {name: {seed: each[0] for seed, each in arm.items()} for name, arm in (("v", varied), ("c", control))}
        counts = PairedCounts.of(solved["v"], solved["c"])
        difference = paired_difference(counts)
        print(
            f"{axis:8} {sum(solved['v'].values())} of {len(varied)} solved,"
            f" {100 * difference.value:+.0f} points ({100 * difference.low:+.0f} to {100 * difference.high:+.0f}),"
            f" p = {counts.p_value():.2g}; {sum(varied[seed] == control[seed] for seed in seeds)} episodes are the same"
        )


if __name__ == "__main__":
    main()
