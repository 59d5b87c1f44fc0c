"""kill -9 of the processes of an evaluation on RLinf, at random moments, and what is left: nothing may be.

    python benchmarks/rlinf_kills.py CHECKPOINT_ROOT --python RLINF_PYTHON --times 20

Each time the command of a user is started, one of its processes is killed, and it is said how long the command then
took to end, with which exit code, what became of its MLflow run, and how many processes of its are left. In the end one
more command has to finish.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rlinf_isaac.engines.rlinf.processes import OWNER, is_zombie, owned

VICTIMS = {
    "driver": "rlinf_isaac.engines.rlinf.worker.driver",
    "policies": "ray::Policies",
    "simulators": "ray::Simulators",
    "raylet": "raylet/raylet",
    "gcs": "gcs/gcs_server",
    "command": "mlflow_project.cli",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        bad = 0
        for number in range(arguments.times):
            victim = list(VICTIMS)[number % len(VICTIMS)]
            bad += not one(home, arguments, victim, chance)
        status = start(home, arguments, episodes=2).wait()
        print(f"afterwards an undisturbed command: exit code {status}; {bad} of {arguments.times} went wrong")
        raise SystemExit(bool(bad or status))


def one(home: Path, arguments: argparse.Namespace, victim: str, chance: random.Random) -> bool:
    command = start(home, arguments, episodes=100_000)
    owner = wait_for(lambda: owner_of(command.pid), 60)
    if owner is None:
        raise SystemExit(f"the command did not start: see {home}/log")
    # Anywhere between the start of Ray and some seconds of episodes; the victim has to exist.
    delay = chance.uniform(0, 45)
    time.sleep(delay)
    pids = [command.pid] if victim == "command" else wait_for(lambda: find(owner, VICTIMS[victim]), 180) or []
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    code: int | str
    try:
        code = command.wait(60)
    except subprocess.TimeoutExpired:
        code = "none"
        command.kill()
    took = time.monotonic() - began
    wait_for(lambda: not running(owner), 10)
    left = running(owner)
    if victim == "command":  # nobody is there to end the run: the next command does
        start(home, arguments, episodes=1, engine="local").wait()
    states = statuses(home)
    # A daemon of Ray that dies before the cluster is up is noticed by Ray itself, which gives it 30 s to come up.
    limit = 40 if victim in ("raylet", "gcs") else 10
    good = bool(pids) and not left and "RUNNING" not in states and code not in (0, "none") and took < limit
    line = f"after {delay:4.1f} s {victim:10} ended in {took:4.1f} s, exit code {code}, runs {states}, left {len(left)}"
    print(line, "" if good else f"  BAD: {tail(home)}", flush=True)
    return good


def start(home: Path, arguments: argparse.Namespace, *, episodes: int, engine: str = "rlinf") -> subprocess.Popen:
    words = ["eval", "--ckpt-root", arguments.checkpoints, "--engine", engine, "--rlinf-python", arguments.python]
    words += ["--episodes", str(episodes), "--num-envs", "2", "--videos", "0", "--output", str(home / "result")]
    # Every time another policy seed: rows that are there are not played again.
    words += ["--policy-seed", str(time.time_ns() % 2**31)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    with open(home / "log", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "mlflow_project.cli", *words], stdout=log, stderr=log, env=environment
        )


def owner_of(parent: int) -> str | None:
    """The owner that a command's children carry."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) != parent:
                continue
            for entry in (path / "environ").read_bytes().split(b"\0"):
                if entry.startswith(f"{OWNER}=".encode()):
                    return entry.partition(b"=")[2].decode()
        except OSError:
            continue
    return None


def find(owner: str, text: str) -> list[int]:
    found = []
    for pid in owned(owner):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        # Ray makes another worker for one that dies while it is made, and the run goes on.
        if text in line and "__init__" not in line:
            found.append(pid)
    return found


def running(owner: str) -> list[int]:
    return [pid for pid in owned(owner) if not is_zombie(pid)]


def wait_for(condition, seconds: float):
    limit = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < limit:
        time.sleep(0.1)
    return found


def statuses(home: Path) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    found = [
        run.info.status
        for experiment in client.search_experiments()
        for run in client.search_runs([experiment.experiment_id])
    ]
    return " ".join(f"{found.count(status)} {status}" for status in sorted(set(found)))


def tail(home: Path) -> str:
    return (home / "log").read_text(errors="replace")[-600:]


if __name__ == "__main__":
    main()
