"""What W&B writes offline of a journal is what the journal has, also when the reporter is killed (SIGKILL)."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from journals import operations_of, points, write

from mlflow_project.reporting.replay import is_complete
from mlflow_project.reporting.target import Progress
from mlflow_project.tracking.operations import StartRun

pytest.importorskip("wandb", reason="the extra wandb is not installed")


def reporter(journal: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "mlflow_project.reporting.replay", str(journal), "wandb", *words]
    environment = os.environ | {"WANDB_MODE": "offline"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)


def read(output: Path) -> dict[str, dict[str, Any]]:
    """Run id -> its record, its rows and its config, by W&B's own reader of what it writes."""
    from wandb.proto import wandb_internal_pb2 as protocol
    from wandb.sdk.internal.datastore import DataStore

    found: dict[str, dict[str, Any]] = {}
    for file in output.glob("wandb/offline-run-*/run-*.wandb"):
        store, rows, config = DataStore(), [], {}
        store.open_for_scan(str(file))
        while (data := store.scan_data()) is not None:
            record = protocol.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                run = record.run
            elif record.WhichOneof("record_type") == "history":
                rows.append(
                    {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
                )
            elif record.WhichOneof("record_type") == "config":
                config |= {
                    ".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.config.update
                }
        assert run.run_id not in found, "one directory for each run"
        found[run.run_id] = {"run": run, "rows": rows, "config": config}
    return found


def told(rows: list[dict[str, Any]]) -> list[tuple[str, int, float, float]]:
    """The metrics in the rows of a run, as `journals.points` has them."""
    return [
        (name, row["step"], row["_timestamp"], value)
        for row in rows
        for name, value in row.items()
        if name not in ("step", "_timestamp", "_runtime", "_step")
        and isinstance(value, int | float)
        and "." not in name
    ]


def plain(rows: list[tuple[str, int, float, float]]) -> list[tuple[str, int, float, float]]:
    return sorted((*row[:3], -1.0 if math.isnan(row[3]) else row[3]) for row in rows)


def test_a_journal_is_read_back_from_what_wandb_wrote_offline(tmp_path):
    journal = write(tmp_path).path
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:9]))  # the outer run has metrics, a nested one has begun
    first = reporter(journal, "follow")
    while Progress.load(journal, "wandb").offset < journal.stat().st_size:
        assert first.poll() is None, first.stderr.read()
        select.select([first.stderr], [], [], 0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not is_complete(journal, Progress.load(journal, "wandb"))

    journal.write_bytes(whole)
    second = reporter(journal)
    _, stderr = second.communicate()
    assert second.returncode == 0, stderr
    assert is_complete(journal, Progress.load(journal, "wandb"))
    found, wanted = read(tmp_path), points(journal)
    assert found.keys() == wanted.keys()
    for run, rows in wanted.items():
        assert plain(told(found[run]["rows"])) == plain(rows)
    starts = {each.run: each for each in operations_of(journal) if isinstance(each, StartRun)}
    outer = next(iter(starts))
    assert {run: each["run"].display_name for run, each in found.items()} == {run: starts[run].name for run in starts}
    assert {each["run"].run_group for each in found.values()} == {f"eval tiny {outer[:8]}"}
    assert (found[outer]["run"].job_type, found[outer]["run"].project) == ("eval", "rlinf-isaac")
    assert (found[outer]["config"]["cfg/lr"], found[outer]["config"]["cfg/model/width"]) == ("0.001", "32")
    nested = found[list(starts)[1]]
    assert any(name.startswith("plots/curve") for row in nested["rows"] for name in row)
