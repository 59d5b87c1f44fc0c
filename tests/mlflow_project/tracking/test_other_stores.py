"""Where a directory has no store, the one that is meant is named: above it, or used lately."""

from __future__ import annotations

import pytest

from mlflow_project.tracking.databases import sqlite_uri
from mlflow_project.tracking.other_stores import missing_store_cure, remember_store


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))


def test_the_nearest_above_comes_before_those_used_lately(tmp_path):
    place, above, used = (tmp_path / name for name in ("project/a/b", "project/mlflow.db", "used/mlflow.db"))
    place.mkdir(parents=True)
    assert missing_store_cure(place).startswith("set MLFLOW_TRACKING_URI, or go")
    used.parent.mkdir()
    used.touch()
    remember_store(sqlite_uri(used))
    assert missing_store_cure(place) == f"set MLFLOW_TRACKING_URI={sqlite_uri(used)}, the one used last"
    above.touch()
    cure = missing_store_cure(place)
    assert cure.startswith(f"set MLFLOW_TRACKING_URI={sqlite_uri(above)}, the nearest one above")
    assert str(used) in cure
    used.unlink()
    assert str(used) not in missing_store_cure(place)


def test_a_few_are_remembered_each_once_and_servers_are_not(tmp_path):
    for number in (*range(20), 19):
        file = tmp_path / str(number) / "mlflow.db"
        file.parent.mkdir(exist_ok=True)
        remember_store(sqlite_uri(file))
    remember_store("http://127.0.0.1:5000")
    lines = (tmp_path / "cache" / "stores.txt").read_text().splitlines()
    assert lines == [str(tmp_path / str(number) / "mlflow.db") for number in range(19, 11, -1)]


def test_nothing_is_raised_where_the_cache_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "file"))
    remember_store(sqlite_uri(tmp_path / "mlflow.db"))
    assert missing_store_cure(tmp_path / "nowhere")
