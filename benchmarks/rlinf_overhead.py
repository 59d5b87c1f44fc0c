"""Where the time of an evaluation on RLinf goes, and how much of it is this project's.

    python benchmarks/rlinf_overhead.py CHECKPOINT_ROOT --python RLINF_PYTHON --episodes 20

The command of a user is run on both engines and timed by what it says. Ours is: everything before the driver starts and
after its last episode, what the driver waits for between checkpoints, and the bookkeeping in the env worker, which is
measured on its own (`--env-worker`, under RLinf's interpreter): the environment as RLinf gets it against the bare one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--env-worker", action="store_true", help="only the environment, in this interpreter")
    arguments = parser.parse_args()
    if arguments.env_worker:
        print(json.dumps(env_worker(Path(arguments.checkpoints))))
        return
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        local = timeline(home, arguments, "local")
        rlinf = timeline(home, arguments, "rlinf")
        metrics = time_metrics(home)
        command = [arguments.python, __file__, "--env-worker", arguments.checkpoints]
        environment = os.environ | {"RLINF_ISAAC_DIRECTORY": name, "PYTHONPATH": str(Path(__file__).parents[1])}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    env = json.loads(said.splitlines()[-1])

    marks = [when for when, line in rlinf if line.startswith("start RLinf")]
    parts = [line.split()[-1] for _, line in rlinf if line.startswith("start RLinf")][:-1]
    (began, _), (ended, _) = rlinf[0], rlinf[-1]
    ready, last = marks[-1], max(when for when, line in rlinf if line.startswith("eval "))
    table = {"command, preflight, MLflow (ours)": marks[0] - began}
    table |= {f"RLinf: {part}": after - before for part, before, after in zip(parts, marks, marks[1:], strict=False)}
    table |= {f"RLinf: {name.removeprefix('time/')}": seconds for name, seconds in metrics.items()}
    bookkeeping = metrics["time/eval"] * env["share"]
    table["... of it bookkeeping in the env worker (ours)"] = bookkeeping
    between = last - ready - sum(metrics.values())
    table["rows, videos, between checkpoints (ours)"] = between
    table["comparison, MLflow, end (ours)"] = ended - last
    for part, seconds in table.items():
        print(f"{seconds:8.2f} s  {part}")
    ours = table["command, preflight, MLflow (ours)"] + bookkeeping + between + ended - last
    total = ended - began
    print(f"{total:8.2f} s  in all; the local engine {local[-1][0] - local[0][0]:.2f} s")
    print(f"ours: {ours:.2f} s, {ours / total:.1%} of the command")
    print(f"ours while episodes are played: {(bookkeeping + between) / (last - ready):.2%}")


def timeline(home: Path, arguments: argparse.Namespace, engine: str) -> list[tuple[float, str]]:
    """When the command said what; the first and the last entry are its start and its end."""
    words = ["eval", "--ckpt-root", arguments.checkpoints, "--engine", engine, "--rlinf-python", arguments.python]
    words += ["--episodes", str(arguments.episodes), "--videos", "2", "--output", str(home / engine)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    said = [(time.monotonic(), "")]
    command = [sys.executable, "-m", "mlflow_project.cli", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment) as it:
        assert it.stderr is not None
        said += [(time.monotonic(), line.strip()) for line in it.stderr]
    if it.returncode:
        raise SystemExit("\n".join(line for _, line in said))
    return [*said, (time.monotonic(), "")]


def time_metrics(home: Path) -> dict[str, float]:
    """Seconds that RLinf took for all checkpoints together."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.engine = 'rlinf' and metrics.`time/eval` > 0")
    return {
        name: sum(point.value for point in client.get_metric_history(run.info.run_id, name))
        for name in ("time/load_checkpoint", "time/eval")
    }


def env_worker(checkpoints: Path) -> dict[str, float]:
    """Play episodes with random actions in the environment as RLinf gets it; seconds in all and in what it wraps."""
    from rlinf_isaac.checkpoint.bundle import read_bundle, select_bundles
    from rlinf_isaac.config import build_config
    from rlinf_isaac.engines.base import EvaluationJob
    from rlinf_isaac.engines.rlinf.config import evaluation_config
    from rlinf_isaac.engines.rlinf.worker.rlinf_stack_cube import RlinfStackCube

    bundle = read_bundle(select_bundles(checkpoints, None)[0], verify=False)
    config = build_config(bundle.job, "the job", ["eval.videos=0"])
    settings = evaluation_config(
        EvaluationJob(config, (bundle,), checkpoints), Path(os.environ["RLINF_ISAAC_DIRECTORY"])
    )
    env = RlinfStackCube(settings.env.eval, config.eval.num_envs, 0, 1, None)
    inside = 0.0

    def timed(function):
        def call(*args, **kwargs):
            nonlocal inside
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                inside += time.perf_counter() - began

        return call

    for name in ("chunk_step", "observe", "reset"):
        setattr(env.env, name, timed(getattr(env.env, name)))
    generator = np.random.default_rng(0)
    began = time.perf_counter()
    rounds = env.begin({"seeds": list(range(2 * config.eval.num_envs)), "finished": [], "films": {}})
    env.reset()
    for _ in range(rounds * config.env.max_episode_steps // config.policy.action_chunk):
        env.chunk_step(generator.normal(size=(env.num_envs, config.policy.action_chunk, 7)).astype(np.float32))
    total = time.perf_counter() - began
    env.close()
    return {"seconds": total, "inside": inside, "share": 1 - inside / total}


if __name__ == "__main__":
    main()
