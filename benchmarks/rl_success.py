"""What reinforcement learning makes of a checkpoint, and in what time: several trainings that differ in the seed alone.

    rlinf-isaac demos --preset small
    rlinf-isaac sft --preset small --dataset DATASET --overrides sft.save_interval=1000
    python benchmarks/rl_success.py --ckpt-root CHECKPOINTS --ckpt-steps 4000 --seeds 0,1,2 -- \\
        --device cuda --iterations 90 --eval-episodes 200

What follows `--` goes to `rlinf-isaac rl` as it stands. With `--gpus 0,1` as many trainings run side by side, each on
one of these GPUs and with an equal share of the CPUs. Printed are, by seed, the success of start and result on the
same held-out seeds, the learning curve, when the exploring policy first reached 80 and 90 % (the mean of three
iterations), and what the parts of an iteration cost. Wall time counts from the start of the command, so imports,
compilation and the evaluations at the end are in it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

from rlinf_isaac.stats.rates import wilson_interval

ROLLOUT, HELD_OUT = "rollout/success_once", "heldout/success_once"
PARTS = ("rollout", "scoring", "update", "evaluation")
GOALS = (0.8, 0.9)
WINDOW = 3
"""Iterations whose mean success has to reach a goal."""


def main() -> None:
    """Train, read what was recorded, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt-root", required=True)
    parser.add_argument("--ckpt-steps", required=True, help="one step")
    parser.add_argument("--seeds", default="0,1,2", help="of the trainings")
    parser.add_argument("--gpus", default="0", help="on which trainings run side by side")
    parser.add_argument("--output", type=Path, default=Path("result/rl_success"))
    parser.add_argument("options", nargs="*", help="of rlinf-isaac rl")
    arguments = parser.parse_args()

    seeds, gpus = [int(seed) for seed in arguments.seeds.split(",")], arguments.gpus.split(",")
    free: Queue[str] = Queue()
    for gpu in gpus:
        free.put(gpu)

    def train(seed: int) -> dict[str, Any]:
        gpu, output = free.get(), arguments.output / f"seed-{seed}"
        try:
            return _train(arguments, seed, gpu, (os.cpu_count() or 1) // len(gpus), output)
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(len(gpus)) as executor:
        found = list(executor.map(train, seeds))
    (arguments.output / "rl_success.json").write_text(json.dumps(found, indent=1))
    for each in found:
        _print(each)


def _train(arguments: argparse.Namespace, seed: int, gpu: str, cpus: int, output: Path) -> dict[str, Any]:
    """One training in a process of its own, with a store of its own."""
    output.mkdir(parents=True, exist_ok=True)
    store = f"sqlite:///{output.absolute()}/mlflow.db"
    command = [sys.executable, "-m", "mlflow_project.cli", "rl", "--ckpt-root", arguments.ckpt_root]
    command += ["--ckpt-steps", arguments.ckpt_steps, "--seed", str(seed), "--output", str(output), *arguments.options]
    apart = {"MLFLOW_TRACKING_URI": store, "CUDA_VISIBLE_DEVICES": gpu}
    began = time.time()
    with (output / "log.txt").open("w") as log:
        if len(gpus := arguments.gpus.split(",")) > 1 and hasattr(os, "sched_setaffinity"):
            first = cpus * gpus.index(gpu)
            command = ["taskset", "--cpu-list", f"{first}-{first + cpus - 1}", *command]
        code = subprocess.run(command, env=os.environ | apart, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        raise SystemExit(f"seed {seed} ended with {code}:\n{(output / 'log.txt').read_text()[-3000:]}")
    return {"seed": seed, "seconds": time.time() - began} | _recorded(store, began)


def _recorded(store: str, began: float) -> dict[str, Any]:
    """The curves, as (iteration, seconds since `began`, success), and the figures of the newest training in a store."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = [run for run in client.search_runs(experiments) if "gain/success_once" in run.data.metrics]
    run = max(runs, key=lambda run: run.info.start_time)

    def history(name: str) -> list[Any]:
        return sorted(client.get_metric_history(run.info.run_id, name), key=lambda point: point.step)

    metrics = run.data.metrics
    curves = {
        name: [(point.step, point.timestamp / 1000 - began, point.value) for point in history(name)]
        for name in (ROLLOUT, HELD_OUT)
    }
    parts = {name: [point.value for point in history(f"time/{name}_s")] for name in PARTS}
    return {
        "curves": curves,
        "parts": {name: {"median": statistics.median(each), "sum": sum(each)} for name, each in parts.items() if each},
        "gpu_wait_share": statistics.median(point.value for point in history("time/gpu_wait_share")),
        "result": {name: metrics[name] for name in metrics if name.startswith(("before/", "gain/", "eval/"))},
        "episodes": int(run.data.params["cfg/eval/episodes"]),
        "after": metrics["gain/success_once"] + metrics["before/success_once"],
        "tags": {name: value for name, value in run.data.tags.items() if name.startswith("rl.")},
    }


def _print(found: dict[str, Any]) -> None:
    result, after = found["result"], found["after"]
    print(f"\nseed {found['seed']}: {found['seconds'] / 60:.1f} min in all; {found['tags'].get('rl.result', '')}")
    low, high = wilson_interval(round(after * found["episodes"]), found["episodes"])
    print(
        f"  of {found['episodes']} held-out episodes: before {result['before/success_once']:.1%}, after {after:.1%} "
        f"[{low:.1%}, {high:.1%}], p = {result['gain/p_value']:.2g} (one-sided, exact)"
    )
    for name, curve in found["curves"].items():
        shown = curve[:: max(1, len(curve) // 12)]
        print(f"  {name}  " + ", ".join(f"{step}: {value:.0%}" for step, _, value in shown))
    for goal in GOALS:
        print(f"  {goal:.0%} while exploring: {_reached(found['curves'][ROLLOUT], goal)}")
    parts = ", ".join(f"{name} {part['median']:.1f}" for name, part in found["parts"].items())
    print(f"  seconds per iteration: {parts}; the policy waited for {found['gpu_wait_share']:.0%} of a rollout")


def _reached(curve: list[tuple[int, float, float]], goal: float) -> str:
    for end in range(WINDOW, len(curve) + 1):
        if statistics.fmean(value for _, _, value in curve[end - WINDOW : end]) >= goal:
            step, seconds, _ = curve[end - 1]
            return f"after {step} iterations, {seconds / 60:.1f} min"
    return "not reached"


if __name__ == "__main__":
    main()
