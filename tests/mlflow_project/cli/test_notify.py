"""`--notify` of a verb, as a process that is killed, and refused before it starts."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from support import SMALL_PRESET, kill_when, shown
from webhook import SECRET, Hook

from mlflow_project.notify.addresses import VARIABLE


@pytest.fixture
def hook() -> Iterator[Hook]:
    each = Hook()
    yield each
    each.close()


def test_a_training_that_is_killed_by_sigterm_says_so(start, store, small_dataset, hook, tmp_path, monkeypatch):
    """The address is that of the environment, and stands nowhere: not in the journal, the store or on the terminal."""
    monkeypatch.setenv(VARIABLE, hook.url)
    process = start("sft", "--dataset", small_dataset, "--output", "out", "--preset", SMALL_PRESET, "--steps", "400")
    kill_when(process, shown("sft", 40), signal.SIGTERM)
    assert process.returncode == 143
    (post,) = hook.posts
    assert (post["event"], post["verb"], post["status"], post["message"]) == ("killed", "sft", "KILLED", "SIGTERM")
    assert post["metrics"]["train/loss"] > 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_what_cannot_be_told_is_refused_before_the_start(invoke, small_dataset, tmp_path):
    wrong = ["ftp://host/x", "https://", "http://host:port/", "http://[::1", "say 'it"]
    plain = tmp_path / "plain"
    plain.touch(0o600)
    missing = ["no-such-command --x", str(plain)]
    words = [word for text in wrong + missing for word in ("--notify", text)]
    arguments = ("sft", "--dataset", small_dataset, "--preset", "tiny", *words)
    for result in (invoke("doctor", *arguments), invoke(*arguments)):
        assert result.exit_code == 2
        # Those that are wrong in the same way are told once.
        assert result.output.count("error bad-notify") == 3, result.output
        assert result.output.count("error notify-not-found") == 2
    assert not (tmp_path / "result").exists()
