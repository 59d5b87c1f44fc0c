from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_project.tracking.known_stores import KEPT, known_outputs, missing_store_cure, remember
from mlflow_project.tracking.store import nearest_store, sqlite_uri


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))


def test_the_newest_first_and_only_what_is_there(tmp_path):
    for name in ("a", "b", "gone"):
        (tmp_path / name).mkdir()
        remember(f"sqlite:////{name}.db", tmp_path / name)
    (tmp_path / "gone").rmdir()
    remember("sqlite:////a.db", tmp_path / "a")
    assert [Path(known.output).name for known in known_outputs()] == ["a", "b"]


def test_old_ones_are_forgotten(tmp_path):
    for number in range(KEPT + 3):
        (tmp_path / str(number)).mkdir()
        remember("http://x", tmp_path / str(number))
    assert len(known_outputs()) == KEPT


def test_a_cache_that_cannot_be_written_is_no_trouble(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "file"))
    remember("http://x", tmp_path)
    assert known_outputs() == []


def test_the_cure_names_the_nearest_above_before_those_used_lately(tmp_path):
    place, above, used = (tmp_path / name for name in ("project/a/b", "project/mlflow.db", "used/mlflow.db"))
    place.mkdir(parents=True)
    assert missing_store_cure(place).startswith("set MLFLOW_TRACKING_URI, or go")
    used.parent.mkdir()
    used.touch()
    remember(sqlite_uri(used), used.parent)
    remember("http://127.0.0.1:5000", place)
    assert missing_store_cure(place) == f"set MLFLOW_TRACKING_URI={sqlite_uri(used)}, the one used last"
    above.touch()
    cure = missing_store_cure(place)
    assert cure.startswith(f"set MLFLOW_TRACKING_URI={sqlite_uri(above)}, the nearest one above")
    assert str(used) in cure
    used.unlink()
    assert str(used) not in missing_store_cure(place)


def test_the_store_that_is_meant(tmp_path, monkeypatch):
    """What is set, here, above, used last: in this order."""
    elsewhere, project = tmp_path / "elsewhere", tmp_path / "project"
    for directory in (elsewhere / "out", project / "a" / "b"):
        directory.mkdir(parents=True)
    (elsewhere / "mlflow.db").write_text("")
    remember(sqlite_uri(elsewhere / "mlflow.db"), elsewhere / "out")
    monkeypatch.chdir(project / "a" / "b")
    assert nearest_store() == sqlite_uri(elsewhere / "mlflow.db")
    (project / "mlflow.db").write_text("")
    assert nearest_store() == sqlite_uri(project / "mlflow.db")
    Path("mlflow.db").write_text("")
    assert nearest_store() == sqlite_uri(project / "a" / "b" / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert nearest_store() == "http://server:5000"
