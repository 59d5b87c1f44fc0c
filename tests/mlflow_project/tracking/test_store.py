from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_project.tracking import store
from mlflow_project.tracking.redact import without_credentials


def test_the_default_is_the_working_directory():
    assert store.tracking_uri() == f"sqlite:///{Path.cwd()}/mlflow.db"


def test_a_given_store_is_respected(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert store.tracking_uri() == "http://host:5000"


def test_a_relative_database_is_made_absolute(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///sub/x.db")
    assert store.tracking_uri() == f"sqlite:///{Path.cwd()}/sub/x.db"


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        ("https://user:pass@host:1/p", "https://host:1/p"),
        ("postgresql://u:p%40@db/x", "postgresql://db/x"),
        ("sqlite:////a@b/x.db", "sqlite:////a@b/x.db"),
        ("http://host", "http://host"),
    ],
)
def test_credentials_are_taken_out_and_put_back(monkeypatch, uri, clean):
    assert without_credentials(uri) == clean
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert store.with_credentials(clean) == uri
    assert store.with_credentials("http://elsewhere") == "http://elsewhere"
