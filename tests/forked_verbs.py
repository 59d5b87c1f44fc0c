"""Verbs as processes of their own, forked from one that has imported once what takes seconds to import.

`Verbs.start` gives what `subprocess.Popen` would: a process with pipes that can be sent signals, in the caller's
directory and environment. (`tests/faults/verbs.py` counts lines and kills at one; there nobody reads along.)
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from io import FileIO, TextIOWrapper
from pathlib import Path
from typing import IO


class Verb:
    """A running verb: the part of `subprocess.Popen` that tests use."""

    def __init__(self, parent: Verbs, pid: int, stdout: IO[str], stderr: IO[str]) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._parent, self._end = parent, os.pidfd_open(pid)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:  # until then its parent keeps its number
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or minus the signal.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired("rlinf-isaac", timeout)
            os.close(self._end)
            self.returncode = self._parent.ask({"wait": self.pid})
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """The rest of its output, when it has ended."""
        pipes = (self.stdout, self.stderr)
        with ThreadPoolExecutor(1) as reader:
            rest = reader.submit(self.stderr.read if not self.stderr.closed else str)
            out, err = "" if self.stdout.closed else self.stdout.read(), rest.result()
        for pipe in pipes:
            pipe.close()
        self.wait()
        return out, err


class Verbs:
    """The process that forks verbs, of this interpreter or another that has the project. It ends with the socket, and
    so with this one."""

    def __init__(self, python: str | Path = sys.executable) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        tests = Path(__file__).parent
        # The packages come first, because tests/rlinf_isaac would be taken for one.
        places = filter(None, [os.environ.get("PYTHONPATH"), str(tests.parent), str(tests)])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
        with other:
            command = [str(python), str(Path(__file__)), str(other.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[other.fileno()], env=environment)

    def start(self, arguments: Sequence[str]) -> Verb:
        """Start a verb, with the arguments of ``rlinf-isaac``."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        order = {"arguments": arguments, "directory": os.getcwd(), "environment": dict(os.environ)}
        pid = self.ask(order, out_end, err_end)
        for end in (out_end, err_end):
            os.close(end)
        return Verb(self, pid, open(out), open(err))

    def ask(self, order: object, *descriptors: int) -> int:
        socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors)
        return int(self._socket.recv(100))

    def close(self) -> None:
        self._socket.close()
        assert self._process.wait() == 0


def main(descriptor: int) -> None:
    """Fork a verb for each order, and wait for it at another."""
    from mlflow_project.cli import VERBS
    from mlflow_project.tracking.mlflow_environment import prepare_environment

    prepare_environment()
    # torch's optimisers import the compiler when they make their first step.
    more = ("torch", "torch._dynamo", "mujoco", "pyarrow.parquet", "mlflow.models")
    for name in (*more, "mlflow.store.tracking.sqlalchemy_store", *(f"mlflow_project.cli.{verb}" for verb in VERBS)):
        import_module(name)
    with socket.socket(fileno=descriptor) as orders:
        while True:
            message, descriptors, _, _ = socket.recv_fds(orders, 1 << 17, 2)
            if not message:
                return
            order = json.loads(message)
            if "wait" in order:
                answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
            else:
                answer = os.fork()
                if answer == 0:
                    break
                for each in descriptors:
                    os.close(each)
            orders.send(str(answer).encode())
    _run(order, descriptors)


def _run(order: dict, descriptors: Sequence[int]) -> None:
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # Others than those of this process, which remember whether they could seek.
    sys.stdout, sys.stderr = (TextIOWrapper(FileIO(number, "w"), write_through=True) for number in (1, 2))
    from mortal import leave

    from mlflow_project.cli import cli

    try:
        cli(order["arguments"], prog_name="rlinf-isaac")
    except SystemExit as end:
        leave(end)


if __name__ == "__main__":
    main(int(sys.argv[1]))
