"""Starts and ends the processes of a run on RLinf: a Ray cluster, unless one is given, and drivers on it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from rlinf_isaac.engines.rlinf.driver_process import DriverProcess
from rlinf_isaac.engines.rlinf.processes import OWNER, end_abandoned, end_owned, new_owner, ray_directory
from rlinf_isaac.engines.rlinf.runtime import Runtime, prepared_environment
from rlinf_isaac.ground.child_process import Child
from rlinf_isaac.ground.errors import EngineFailed

RAY_PORTS = ("port", "ray-client-server-port", "dashboard-port", "dashboard-agent-listen-port")
"""Ports of a Ray head whose defaults are the same for every cluster. The first one is the port of its address."""


class RlinfSession:
    """Context manager that ends every process it has started when the block ends, also after an exception.

    Attributes:
        directory: directory of the file ``ray.log``.
        runtime: the runtime.
    """

    def __init__(self, directory: Path, runtime: Runtime, environment: Mapping[str, str] | None = None) -> None:
        """Prepare the environment of the processes, and add `environment` to it.

        Raises:
            InvalidJob: a setup script of the runtime fails.
        """
        self.directory, self.runtime = directory, runtime
        self._owner = new_owner()
        self._ray_directory = ray_directory(self._owner)
        self._environment = prepared_environment(runtime) | dict(environment or {})
        self._ray: Child | None = None
        self._drivers: list[DriverProcess] = []

    def __enter__(self) -> RlinfSession:
        end_abandoned()
        with ExitStack() as stack:
            stack.callback(self._end)
            self._ray_directory.mkdir(mode=0o700)
            self._start_ray()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._cleanup:
            if error is None:
                for driver in self._drivers:
                    driver.stop()

    def drive(self, directory: Path) -> DriverProcess:
        """Start a driver for the config in `directory`. Several drivers share the cluster and fail independently."""
        command = [self.runtime.interpreter, "-m", "rlinf_isaac.engines.rlinf.worker.driver", str(directory)]
        environment = self._environment | {"RLINF_ISAAC_DIRECTORY": str(directory)}
        driver = DriverProcess(
            directory, command, environment, check_cluster=self._check_ray, patience_s=self.runtime.patience_s
        )
        self._drivers.append(driver)
        return driver

    def _start_ray(self) -> None:
        """Start a Ray head if no cluster is given, and set the variables by which processes find the cluster."""
        chained = self._environment.get("RLINF_EXT_MODULE")
        self._environment |= {
            OWNER: self._owner,
            "RLINF_EXT_MODULE": "rlinf_isaac.engines.rlinf.worker.extension",
            "PYTHONUNBUFFERED": "1",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        if chained:
            self._environment["RLINF_ISAAC_CHAIN_EXT"] = chained
        if self.runtime.ray_address is not None:
            self._environment["RAY_ADDRESS"] = self.runtime.ray_address
            return
        ports = free_ports(len(RAY_PORTS))
        self._environment |= {
            "RLINF_ISAAC_OWN_RAY": "1",
            # Ray's prestarted workers would be useless, because every worker of RLinf has its own variables.
            "RAY_prestart_worker_first_driver": "0",
            "RAY_TMPDIR": str(self._ray_directory),
            # Without a token, everybody who can reach the cluster could run code in it.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": os.urandom(24).hex(),
        }
        head = ray_head(self.runtime.interpreter, self._ray_directory, ports)
        command = [*head, "--block", "--include-dashboard=false"]
        self._ray = Child(command, self.directory / "ray.log", environment=self._environment)
        self._environment["RAY_ADDRESS"] = f"127.0.0.1:{ports[0]}"

    def _check_ray(self) -> None:
        if self._ray is not None and (ending := self._ray.ending) is not None:
            raise EngineFailed(f"Ray's head ended with {ending} (log: {self.directory / 'ray.log'})")

    def _end(self) -> None:
        """End all processes, in a thread, because launchers send two signals and the second would interrupt it here."""
        thread = threading.Thread(target=self._end_processes)
        thread.start()
        thread.join()

    def _end_processes(self) -> None:
        for child in [driver.child for driver in self._drivers] + ([self._ray] if self._ray else []):
            child.kill()
        end_owned(self._owner)
        shutil.rmtree(self._ray_directory, ignore_errors=True)


def ray_head(python: str, directory: Path, ports: Sequence[int]) -> list[str]:
    """The command that starts the head of a Ray cluster at 127.0.0.1.

    Args:
        python: interpreter that has Ray.
        directory: directory for the cluster's files, with a short path (`processes.ray_directory`).
        ports: one port for each of `RAY_PORTS`.
    """
    command = [python, "-m", "ray.scripts.scripts", "start", "--head", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", f"--temp-dir={directory}"]
    return command + [f"--{name}={port}" for name, port in zip(RAY_PORTS, ports, strict=True)]


def free_ports(count: int) -> list[int]:
    """`count` different ports on which nobody listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
