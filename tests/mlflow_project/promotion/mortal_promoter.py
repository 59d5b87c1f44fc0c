"""Promotes in processes that die by SIGKILL in the middle. Driven by test_registry.py through pipes.

Each line on stdin, a JSON object with ``uri``, ``model_id``, ``digest``, ``replaces`` and ``limits``, forks one process
per limit, all at once. It executes that many lines of registry.py and then kills itself; 0 lets it live. Reported, as
JSON: for each of them the exit status (3: refused) and the lines executed.
"""

from __future__ import annotations

import json
import os
import sys

import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  (imported before the fork)
from mlflow import MlflowClient
from mortal import die_at

from mlflow_project.promotion.registry import Registry
from mlflow_project.tracking.mlflow_environment import prepare_environment
from rlinf_isaac.ground.errors import PromotionRefused


def promote(order: dict, limit: int, writer: int) -> int:
    os.environ["MLFLOW_TRACKING_URI"] = order["uri"]
    registry = Registry(MlflowClient(order["uri"]), "stack-cube")
    executed = die_at(("mlflow_project/promotion/registry.py",), limit)
    try:
        registry.promote(order["model_id"], order["digest"], {"gate.evidence": order["digest"]}, order["replaces"])
        status = 0
    except PromotionRefused as refusal:
        status = refusal.exit_code
    sys.settrace(None)
    os.write(writer, str(executed[0]).encode())
    return status


def main() -> None:
    prepare_environment()
    for line in sys.stdin:
        order, children = json.loads(line), []
        for limit in order["limits"]:
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    status = promote(order, limit, writer)
                finally:
                    os._exit(status)
            os.close(writer)
            children.append((pid, reader))
        report = []
        for pid, reader in children:
            _, status = os.waitpid(pid, 0)
            with open(reader) as pipe:
                report.append((os.waitstatus_to_exitcode(status), int(pipe.read() or 0)))
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
