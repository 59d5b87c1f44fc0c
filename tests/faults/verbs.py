"""Runs verbs as processes of their own, forked from one that has imported once what takes seconds to import.

    with verbs() as start:
        (end,) = start([Job(["sft", "--dataset", "data"], directory, kill_line=120)])

Jobs that are started together leave one barrier in the same moment. A job is a whole process: in a session of its own,
with its output in a file, and it ends as Python does. It can be killed (SIGKILL) after so many seconds, or at a line
of this project's code that any of its threads executes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType

LIMIT_S = 600.0
"""For one job; it is killed then, and its status is not 0."""
_PACKAGES = ("/rlinf_isaac/", "/mlflow_project/")
_INNER_LOOPS = ("/envs/", "/pi0/", "/rollout/")
"""Code that writes nothing, and would take minutes when it is traced."""
_IMPORTS = (
    *("torch", "torch._dynamo", "mujoco", "pyarrow.parquet", "scipy.stats"),
    *("mlflow.models", "mlflow.pyfunc", "mlflow.projects"),
)


@dataclass(frozen=True)
class Job:
    """A verb to run.

    Attributes:
        arguments: of ``rlinf-isaac``.
        directory: where it runs.
        environment: variables beyond those of the caller; those that are None are removed.
        log: file to which its output is appended.
        kill_s: seconds until it is killed; 0 for never.
        kill_line: number of the line at which it is killed; 0 for never.
        kill_after: lines are counted from when this path exists.
        trace: count lines even if it is not killed.
    """

    arguments: Sequence[str]
    directory: str
    environment: dict[str, str | None] = field(default_factory=dict)
    log: str = os.devnull
    kill_s: float = 0.0
    kill_line: int = 0
    kill_after: str | None = None
    trace: bool = False


@dataclass(frozen=True)
class End:
    """How a job ended.

    Attributes:
        status: exit code, or minus the signal.
        seconds: it lived.
        lines: that were counted, with `Job.trace`.
        session: of its processes, of which some may live on.
    """

    status: int
    seconds: float
    lines: int
    session: int


@contextmanager
def verbs() -> Iterator[Callable[[Sequence[Job]], list[End]]]:
    """A function that runs jobs, all of them at once."""
    from support import mortal

    with mortal(Path(__file__)) as process:

        def start(jobs: Sequence[Job]) -> list[End]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
            return [End(**end) for end in json.loads(process.stdout.readline())]

        yield start


def main() -> None:
    from mlflow_project.cli import VERBS
    from mlflow_project.tracking.mlflow_environment import prepare_environment

    prepare_environment()
    for name in (*_IMPORTS, "mlflow.store.tracking.sqlalchemy_store", *(f"mlflow_project.cli.{v}" for v in VERBS)):
        import_module(name)
    for line in sys.stdin:
        jobs = [Job(**job) for job in json.loads(line)]
        barrier, go = os.pipe()
        counts = [tempfile.TemporaryFile() for _ in jobs]  # noqa: SIM115  (closed by the garbage collector)
        children = [_fork(job, barrier, go, count.fileno()) for job, count in zip(jobs, counts, strict=True)]
        os.close(barrier)
        os.close(go)  # they all read the end of the pipe, and go
        ends: dict[int, tuple[int, float]] = {}
        waiting = [
            threading.Thread(target=_wait, args=(child, job.kill_s or LIMIT_S, ends))
            for child, job in zip(children, jobs, strict=True)
        ]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        lines = [int(count.read() or 0) for count in counts if count.seek(0) == 0]
        found = zip(children, lines, strict=True)
        print(json.dumps([asdict(End(*ends[child], number, child)) for child, number in found]), flush=True)


def _wait(child: int, seconds: float, ends: dict[int, tuple[int, float]]) -> None:
    from mortal import wait_or_kill

    ends[child] = wait_or_kill(child, seconds)


def _fork(job: Job, barrier: int, go: int, count: int) -> int:
    if pid := os.fork():
        return pid
    os.setsid()
    os.close(go)
    os.read(barrier, 1)
    os.close(barrier)
    os.chdir(job.directory)
    for name, value in job.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    tempfile.tempdir = None
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    if job.trace or job.kill_line:
        _trace(job, count)
    from mortal import leave

    from mlflow_project.cli import cli

    try:
        cli(list(job.arguments), prog_name="rlinf-isaac")
    except SystemExit as end:
        leave(end)
    raise AssertionError


def _trace(job: Job, count: int) -> None:
    import atexit

    count = os.dup(count)  # this one is open until the end
    executed, counting = 0, job.kill_after is None

    def trace(frame: FrameType, event: str, argument: object) -> object:
        nonlocal executed, counting
        file = frame.f_code.co_filename
        if not any(part in file for part in _PACKAGES) or any(part in file for part in _INNER_LOOPS):
            return None
        if not counting:
            assert job.kill_after is not None
            counting = os.path.exists(job.kill_after)
        executed += counting and event == "line"
        if job.kill_line and executed >= job.kill_line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    atexit.register(lambda: os.pwrite(count, str(executed).encode(), 0))


if __name__ == "__main__":
    main()
