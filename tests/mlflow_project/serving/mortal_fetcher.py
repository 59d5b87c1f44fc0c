"""Fetches models in processes that die by SIGKILL in the middle. Driven by test_resolve.py through pipes.

Each line on stdin, ``<name> <lines>...``, forks one process per number of lines, all at once. It executes that many
lines of the fetching code and then kills itself; 0 lets it live. Reported for each of them, on one line: exit status,
lines executed, whether it downloaded, and the digest of what it got.
"""

from __future__ import annotations

import os
import sys

import mlflow.artifacts
import mlflow.models
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (imported before the fork)
from mortal import die_at

from mlflow_project.serving import resolve
from mlflow_project.tracking.mlflow_environment import prepare_environment

FETCHING = ("serving/resolve.py", "rlinf_isaac/ground/atomic.py", "artifact_repo.py")


def fetch(name: str, limit: int, writer: int) -> None:
    downloads = []
    download = resolve._download
    resolve._download = lambda *arguments: (downloads.append(1), download(*arguments))
    executed = die_at(FETCHING, limit)
    digest = resolve.resolve_model(name).digest
    sys.settrace(None)
    os.write(writer, f"{executed[0]} {len(downloads)} {digest}".encode())


def main() -> None:
    prepare_environment()
    for command in sys.stdin:
        name, *limits = command.split()
        children = []
        for limit in limits:
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    fetch(name, int(limit), writer)
                finally:
                    os._exit(0)
            os.close(writer)
            children.append((pid, reader))
        report = []
        for pid, reader in children:
            _, status = os.waitpid(pid, 0)
            with open(reader) as pipe:
                report.append(f"{os.waitstatus_to_exitcode(status)} {pipe.read() or '0 0 none'}")
        print(" ".join(report), flush=True)


if __name__ == "__main__":
    main()
