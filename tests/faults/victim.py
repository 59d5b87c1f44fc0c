"""Calls the command line in processes that have little memory and little time. Driven by `attackers.Victim`.

Each line on stdin, a JSON list of an attack's number and a directory, forks one process (everything was imported once):
it prepares the attack, and calls the verb there. What it prints goes to the files ``stdout`` and ``stderr`` beside the
directory. A line of JSON on stdout says how it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import resource
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import av  # noqa: F401
import mlflow.models
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import sentencepiece  # noqa: F401
import tensorboard.compat.proto.event_pb2  # noqa: F401
import torch
from faults.attack import Attack
from faults.hostile import ATTACKS
from mlflow import MlflowClient
from mlflow.cli import cli as mlflow_cli

import mlflow_project
import rlinf_isaac
from mlflow_project.cli import cli

PROJECT = Path(__file__).parents[2]
MEMORY = 1 << 30
CPU_SECONDS = 20
WALL_SECONDS = 60  # only what waits for something takes so much longer than it computes


def limit() -> None:
    """One GiB of memory in all, of which the imports have a part. Of what they have reserved they use little, so that
    the limit is put on what is added."""
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    reserved, resident = (int(status[name].split()[0]) << 10 for name in ("VmData", "VmRSS"))
    most = reserved + MEMORY - resident
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(WALL_SECONDS)


def call(attack: Attack, directory: Path) -> int:
    """The exit code of the verb, called in `directory`."""
    shutil.copy(sys.argv[1], directory / "mlflow.db")
    attack.prepare(directory)
    os.chdir(directory)
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db", **attack.environment}
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(directory.with_name(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    limit()
    try:
        if attack.verb == "run":  # of MLflow, with our backend
            mlflow_cli(["run", str(PROJECT), *attack.words[1:]], prog_name="mlflow")
        cli(list(attack.words), prog_name="rlinf-isaac")
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    """Take orders."""
    for package in (mlflow_project, rlinf_isaac):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            with suppress(ImportError):  # what runs in RLinf's interpreter, or IsaacLab's
                importlib.import_module(module.name)
    MlflowClient(f"sqlite:///{sys.argv[1]}").search_experiments()  # an empty store, which takes seconds to make
    torch.set_num_threads(1)
    for line in sys.stdin:
        number, directory = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = call(ATTACKS[number], Path(directory))
            except BaseException:
                traceback.print_exc()  # of the attack itself: on the terminal of the tests
            finally:
                os._exit(code)
        _, status, usage = os.wait4(pid, 0)
        result = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": usage.ru_utime + usage.ru_stime,
            "wall": time.monotonic() - began,
            "mb": usage.ru_maxrss / 1024,
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
