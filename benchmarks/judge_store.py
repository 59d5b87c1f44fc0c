"""How long one `compare` takes over a store with 50 ingested evaluations of four tools, 100 episodes each.

    python benchmarks/judge_store.py --root /tmp/judge-store

Ingests files in the forms of lerobot, vla-eval, W&B and plain tables, and then compares all runs in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from mlflow import MlflowClient

from mlflow_project.tracked.ingest import run_foreign
from rlinf_isaac.foreign_results.model import Options
from rlinf_isaac.foreign_results.read import format_of, read_foreign

EPISODES = 100


def write_source(folder: Path, number: int) -> Path:
    """Results of one policy in the form of one of four tools, in turn."""
    chance = random.Random(number)
    rate = chance.uniform(0.4, 0.9)
    won = [chance.random() < rate for _ in range(EPISODES)]
    name = f"policy{number:02d}"
    folder = folder / name
    folder.mkdir(parents=True)
    match number % 4:
        case 0:
            rows = [
                {"episode_ix": i, "sum_reward": float(w), "max_reward": float(w), "success": w, "seed": 1000 + i}
                for i, w in enumerate(won)
            ]
            path, value = (
                folder / "eval_info.json",
                {"per_episode": rows, "aggregated": {"pc_success": float(sum(won))}},
            )
        case 1:
            episodes = [{"episode_id": i, "metrics": {"success": w}, "steps": 50} for i, w in enumerate(won)]
            value = {"benchmark": "b", "mode": "sync", "harness_version": "0.8.0", "config": {"params": {"seed": 7}}}
            value |= {"tasks": [{"task": "t", "episodes": episodes}], "server_info": {"model": name}}
            path = folder / "b_aggregate.json"
        case 2:
            path = folder / f"{name}.csv"
            path.write_text(f"Name,_runtime,eval/success_rate,n_episodes\n{name},1,{sum(won) / EPISODES},{EPISODES}\n")
            return path
        case _:
            path = folder / f"{name}.csv"
            lines = [f"t,{i},{name},{int(w)}" for i, w in enumerate(won)]
            path.write_text("\n".join(["task,seed,policy,success", *lines]) + "\n")
            return path
    path.write_text(json.dumps(value))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="an empty directory")
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    uri = os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{options.root.absolute()}/mlflow.db"
    options.root.mkdir(parents=True, exist_ok=True)
    for number in range(options.runs):
        path = write_source(options.root / "sources", number)
        run_foreign(read_foreign(path, format_of(path), Options(task="t")), options.root / "output")
    client = MlflowClient(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(experiments, "tags.`ingest.digest` != ''", max_results=1000)
    ids = [run.info.run_id for run in found]
    print(f"{len(ids)} sources in the store", flush=True)
    words = [sys.executable, "-m", "mlflow_project.cli", "compare", *ids, "--output", str(options.root / "output")]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"compare: {time.perf_counter() - began:.1f} s, {cpu:.1f} s of CPU")


if __name__ == "__main__":
    main()
