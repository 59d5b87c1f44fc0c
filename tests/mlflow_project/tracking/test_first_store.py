"""The first database of a directory: whole or not at all, whoever is killed while it is made."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import mortal

from mlflow_project.tracking.first_store import QUIET_S, ensure_store
from mlflow_project.tracking.store import sqlite_uri

KILLS = int(os.environ.get("RLINF_ISAAC_KILLS", "2"))
"""Of each kind. The moments are drawn anew each time: a failure names its own."""


def tables(path: Path) -> int:
    with sqlite3.connect(path) as database:
        return database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]


@pytest.fixture(scope="module")
def mortal_recorder() -> Iterator:
    with mortal(Path(__file__).with_name("mortal_recorder.py")) as process:

        def record(directory: Path, name: str, seconds: float = 0.0, number: int = signal.SIGKILL) -> tuple[int, float]:
            order = {"directory": str(directory), "name": name, "seconds": seconds, "signal": int(number)}
            process.stdin.write(json.dumps(order) + "\n")
            return tuple(json.loads(process.stdout.readline()))

        yield record


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_dies_while_it_is_made_costs_nothing(mortal_recorder, content, tmp_path, number):
    (tmp_path / "whole").mkdir()
    status, lived = mortal_recorder(tmp_path / "whole", "whole")
    assert status == 0
    early = 0
    for trial in range(KILLS):
        directory = tmp_path / str(trial)
        directory.mkdir()
        moment = random.uniform(0.02, lived)
        died, _ = mortal_recorder(directory, "first", moment, number)
        early += not (directory / "mlflow.db").exists()
        assert mortal_recorder(directory, "second")[0] == 0, f"{died} after {moment} s"
        runs = content(sqlite_uri(directory / "mlflow.db")).runs
        assert runs["second"]["status"] == "FINISHED"
        if list(directory.glob("out/journal/*-sft-*.jsonl"))[1:]:  # the first had recorded its start
            assert runs["first"]["status"] in ("KILLED", "FINISHED"), f"{died} after {moment} s"
        assert not list(directory.glob(".mlflow.db.tmp*")), "what the killed one had begun is gone"
    print(f"{early} of {KILLS} ended before there was a database")


def half_made(path: Path, complete: Path) -> None:
    """What MLflow's own process leaves when it is killed between two of its migrations."""
    shutil.copy(complete, path)
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM experiments")
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.execute("DROP TABLE logged_model_params")
    os.utime(path, (0, 0))


def test_what_another_process_left_half_made_is_put_aside(empty_database, tmp_path, caplog):
    path = tmp_path / "mlflow.db"
    half_made(path, empty_database)
    Path(f"{path}-journal").write_bytes(b"left over")
    ensure_store(sqlite_uri(path))
    assert MlflowClient(sqlite_uri(path)).search_experiments()[0].name == "Default"
    (aside,) = tmp_path.glob("mlflow.db.half-made-*Z")
    assert aside.name in caplog.text
    assert not Path(f"{path}-journal").exists(), "sqlite would apply it to the new one"
    assert tables(aside) > 10


def test_one_that_is_being_made_is_waited_for(empty_database, tmp_path):
    path = tmp_path / "mlflow.db"
    half_made(path, empty_database)
    os.utime(path)
    maker = threading.Timer(QUIET_S / 8, shutil.copy, (empty_database, path))
    maker.start()
    ensure_store(sqlite_uri(path))
    maker.join()
    assert not list(tmp_path.glob("*.half-made-*"))


def test_an_old_store_with_content_is_never_touched(empty_database, tmp_path):
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    before = path.read_bytes()
    ensure_store(sqlite_uri(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"no database at all, and 100 bytes of it".ljust(100)])
def test_what_is_no_store_is_left_alone(tmp_path, content):
    path = tmp_path / "mlflow.db"
    path.write_bytes(content)
    ensure_store(sqlite_uri(path))
    assert path.read_bytes() == content


def test_a_database_of_somebody_elses_is_left_alone(tmp_path):
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (x)")
    ensure_store(sqlite_uri(path))
    assert tables(path) == 1


def test_a_directory_that_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        ensure_store(sqlite_uri(tmp_path / "file" / "mlflow.db"))
