"""RLinf as seen from the outside: a Ray cluster of our own and a driver, started, listened to, ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from rlinf_isaac.engines.rlinf.journal import JournalReader
from rlinf_isaac.engines.rlinf.processes import OWNER, end_abandoned, end_owned, new_owner, ray_directory
from rlinf_isaac.engines.rlinf.runtime import Runtime, prepared_environment
from rlinf_isaac.errors import EngineFailed

_POLL_SECONDS = 0.05
_STOP_SECONDS = 10.0


class RlinfSession:
    """Context manager. Whatever happens, nothing that it started is left when the block has ended.

    Attributes:
        directory: of the run: ``config.yaml`` (written before), ``journal/``, ``driver.log``, ``ray.log``.
    """

    def __init__(self, directory: Path, runtime: Runtime, environment: Mapping[str, str] | None = None) -> None:
        """`environment` comes on top of the prepared one.

        Raises:
            InvalidJob: the runtime's setup scripts do not work.
        """
        self.directory, self.runtime = directory, runtime
        self._owner = new_owner()
        self._ray_directory = ray_directory(self._owner)
        self._environment = prepared_environment(runtime) | dict(environment or {})
        self._reader = JournalReader(directory / "journal")
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._heard = time.monotonic()

    def __enter__(self) -> RlinfSession:
        end_abandoned()
        with ExitStack() as stack:
            stack.callback(self._end)
            self._ray_directory.mkdir(mode=0o700)
            self._start()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._cleanup:
            if error is None:
                self._stop_driver()

    def order(self, do: str, **values: Any) -> Iterator[dict[str, Any]]:
        """Give the driver an order; what the run's journals say until it is carried out.

        Raises:
            EngineFailed: the driver, Ray or a worker failed or died, or nothing was heard for too long.
        """
        driver = self._processes["driver"]
        assert driver.stdin is not None
        try:
            driver.stdin.write(json.dumps({"do": do, **values}) + "\n")
            driver.stdin.flush()
        except BrokenPipeError:
            self._watch()
        yield from self.until("done")

    def until(self, kind: str) -> Iterator[dict[str, Any]]:
        """What the journals say, up to the first line of this kind, which is the last one given. Raises as `order`."""
        while True:
            for line in self._reader.read():
                self._heard = time.monotonic()
                if line["kind"] == "failed":
                    raise EngineFailed(self._reason(line["cause"]))
                yield line
                if line["kind"] == kind:
                    return
            self._watch()
            time.sleep(_POLL_SECONDS)

    def _start(self) -> None:
        environment = self._environment | {
            OWNER: self._owner,
            "RLINF_ISAAC_DIRECTORY": str(self.directory),
            "RLINF_EXT_MODULE": "rlinf_isaac.engines.rlinf.extension",
            "PYTHONUNBUFFERED": "1",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if theirs := self._environment.get("RLINF_EXT_MODULE"):
            environment["RLINF_ISAAC_CHAIN_EXT"] = theirs
        python = self.runtime.interpreter
        if self.runtime.ray_address is None:
            ports = _free_ports(4)
            environment |= {
                "RLINF_ISAAC_OWN_RAY": "1",
                "RAY_TMPDIR": str(self._ray_directory),
                # Whoever can reach a cluster without a token can run code in it.
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": os.urandom(24).hex(),
            }
            host = "127.0.0.1"
            names = ("--port", "--ray-client-server-port", "--dashboard-port", "--dashboard-agent-listen-port")
            head = [python, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--include-dashboard=false"]
            head += ["--node-ip-address", host, "--disable-usage-stats", "--temp-dir", str(self._ray_directory)]
            head += [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]
            self._launch("ray", head, environment)
            environment["RAY_ADDRESS"] = f"{host}:{ports[0]}"
        else:
            environment["RAY_ADDRESS"] = self.runtime.ray_address
        driver = [python, "-m", "rlinf_isaac.engines.rlinf.driver", str(self.directory)]
        self._launch("driver", driver, environment)

    def _launch(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        with open(self.directory / f"{name}.log", "w") as log:
            self._processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                text=True,
                start_new_session=True,  # Ctrl-C is for this process, which ends them
            )

    def _watch(self) -> None:
        """Raise if a process has ended, or nothing was heard for too long."""
        for name, process in self._processes.items():
            if (status := process.poll()) is not None:
                for line in self._reader.read():  # it may have said why
                    if line["kind"] == "failed":
                        raise EngineFailed(self._reason(line["cause"]))
                how = f"signal {-status}" if status < 0 else f"exit status {status}"
                what = "Ray's head" if name == "ray" else "RLinf's driver"
                raise EngineFailed(f"{what} ended with {how}: {self._reason('')}")
        if time.monotonic() - self._heard > self.runtime.patience_s:
            seconds = f"{self.runtime.patience_s:.0f} s"
            raise EngineFailed(f"nothing was heard of RLinf for {seconds}: a simulator may hang. See {self.directory}")

    def _reason(self, cause: str) -> str:
        log = self.directory / "driver.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return f"{cause or cause_in(text)} (log: {log})"

    def _stop_driver(self) -> None:
        """Let the driver finish its files."""
        driver = self._processes["driver"]
        assert driver.stdin is not None
        try:
            driver.stdin.write(json.dumps({"do": "stop"}) + "\n")
            driver.stdin.flush()
            driver.wait(_STOP_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass

    def _end(self) -> None:
        """End everything. In a thread, because launchers send two signals, and the second would interrupt this."""
        thread = threading.Thread(target=self._end_processes)
        thread.start()
        thread.join()

    def _end_processes(self) -> None:
        for process in self._processes.values():
            process.kill()
        end_owned(self._owner)
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
            process.wait()
        shutil.rmtree(self._ray_directory, ignore_errors=True)


def cause_in(log: str) -> str:
    """Why a call of a worker failed, of what RLinf printed: the exception of the first one that did."""
    _, found, text = log.partition("exception is ")
    if not found:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        return lines[-1][:500] if lines else "it said nothing"
    # The text of Ray's error is a traceback, whose last line is at the left margin and names the exception.
    named = re.search(r"^[A-Za-z_][\w.]*: .*(?:\n +-> .*)*", text, re.MULTILINE)
    return " ".join((named[0] if named else text[:500]).split())


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
