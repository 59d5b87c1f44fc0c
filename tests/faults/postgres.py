"""A PostgreSQL cluster of a test's own on a loopback port, run as an ordinary user (Debian's ``postgresql``)."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2

_USER = "nobody"
"""Whose processes they are where the tests run as root, which PostgreSQL refuses."""


def programs() -> Path | None:
    """Directory of ``initdb`` and ``pg_ctl``; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists()), None)


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs at `port`."""

    port: int

    def create(self, name: str, template: str = "template1") -> str:
        """Make a database as a copy of another one, to which nobody is connected; returns its URI."""
        with closing(psycopg2.connect(host="127.0.0.1", port=self.port, user="test", dbname="postgres")) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql+psycopg2://test@127.0.0.1:{self.port}/{name}"


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Yield a new cluster, which ends with the block."""
    where = programs()
    assert where is not None
    # Not in pytest's directories: another user may not enter them.
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-postgres-") as directory:
        if os.geteuid() == 0:
            shutil.chown(directory, _USER)
        data, port = Path(directory) / "data", _free_port()
        _run(where / "initdb", "-D", data, "-U", "test", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        settings = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        _run(where / "pg_ctl", "-D", data, "-w", "-l", Path(directory) / "log", "-o", settings, "start")
        try:
            yield Cluster(port)
        finally:
            _run(where / "pg_ctl", "-D", data, "-m", "immediate", "stop")


def _run(*command: object) -> None:
    options: dict[str, object] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
