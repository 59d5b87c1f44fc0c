from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_project.tracking.redact import HIDDEN, clean_urls, has_credentials, redact, without_credentials

SECRET = "hunter2-and-more"


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        ("https://user:pass@host:1/p", "https://host:1/p"),
        ("https://token@host", "https://host"),
        ("postgresql://u:p%40@db/x", "postgresql://db/x"),
        ("postgresql://db/x?user=bob&password=hunter2&sslmode=require", "postgresql://db/x?sslmode=require"),
        ("mssql+pyodbc://db/x?PWD=a&passwd=hunter2", "mssql+pyodbc://db/x?PWD=a"),
        ("http://host/?access_token=x", "http://host/"),
        ("http://bob:p[ss@host", f"http://{HIDDEN}@host"),
        ("http://bob:p@ss@host", "http://host"),
        ("sqlite:////a@b/x.db", "sqlite:////a@b/x.db"),
        ("http://host", "http://host"),
    ],
)
def test_a_uri_loses_its_credentials_and_nothing_else(uri, clean):
    assert without_credentials(uri) == clean
    assert has_credentials(uri) == (uri != clean)


@pytest.mark.parametrize(
    "text",
    [
        f"API request to http://bob:{SECRET}@host:5000/api/2.0 failed with exception",
        f"cannot connect: postgresql://u:{SECRET}@db/x, and postgresql+psycopg2://v:{SECRET}@db",
        f"http://host/x?password={SECRET}&a=1",
        f'{{"source":"https://host/?access_token={SECRET}"}}',
    ],
)
def test_urls_in_a_text_lose_their_credentials(text):
    cleaned = clean_urls(text)
    assert SECRET not in cleaned
    assert HIDDEN in cleaned
    assert clean_urls(cleaned) == cleaned


@given(st.text())
def test_a_text_without_a_url_stays_as_it_is(text):
    assert clean_urls(text.replace("://", "")) == text.replace("://", "")


def test_a_word_that_is_also_a_password_is_left_alone_in_records(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "checkpoints")
    assert clean_urls("sft/checkpoints/100") == "sft/checkpoints/100"


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"])
def test_what_a_person_reads_has_no_value_of_a_secret_variable(monkeypatch, name):
    monkeypatch.setenv(name, SECRET)
    assert redact(f"the server said: {SECRET} is wrong") == f"the server said: {HIDDEN} is wrong"


@pytest.mark.parametrize("uri", ["http://bob:hunter%212-and@host", "postgresql://h/x?user=b&password=hunter%212-and"])
def test_nor_the_password_of_the_store_in_any_spelling(monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert redact("hunter!2-and, hunter%212-and") == f"{HIDDEN}, {HIDDEN}"
