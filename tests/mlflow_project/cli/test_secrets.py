"""Secrets of the tracking URI and of the environment, planted and looked for wherever a verb leaves something."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import SHORT_EVALUATION, SMALL_PRESET, use_dead_server

SECRET = "Zx9-hunter2-planted"
VARIABLES = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD")


def places_of(secret: str, *roots: Path) -> list[str]:
    """Files below `roots` with the secret in their name or bytes."""
    found = []
    for path in (each for root in roots for each in root.rglob("*")):
        if secret in path.name or (path.is_file() and secret.encode() in path.read_bytes()):
            found.append(str(path))
    return found


@contextmanager
def watched_processes() -> Iterator[list[str]]:
    """Command lines with the secret of all processes that live while the block runs."""
    seen: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:  # it has ended
                    continue
                if SECRET.encode() in line:
                    seen.append(line.decode(errors="replace"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def with_password(uri: str, query: str = "") -> str:
    return uri.replace("http://", f"http://bob:{SECRET}@") + query


def test_a_training_and_an_evaluation_leave_none_anywhere(own_server, start, small_dataset, tmp_path, monkeypatch):
    """They, as processes of their own with secrets in the environment, and the processes that they start."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", with_password(own_server.uri))
    for number, name in enumerate(VARIABLES):
        monkeypatch.setenv(name, f"{SECRET}-{number}")

    def run_verb(*arguments: object) -> tuple[int, str]:
        process = start(*arguments)
        output = "".join(process.communicate())
        return process.returncode, output

    training = ("sft", "--dataset", small_dataset, "--preset", SMALL_PRESET, "--steps", 2, "--output", "out")
    with watched_processes() as seen:
        code, output = run_verb(*training)
        assert (code, SECRET in output) == (0, False), output
        (root,) = tmp_path.glob("out/sft/*/checkpoints")
        short = ("--episodes", 2, "--overrides", SHORT_EVALUATION)
        code, output = run_verb("eval", "--ckpt-root", root, *short, "--output", "out")
        assert (code, SECRET in output) == (0, False), output
    assert seen == []
    own_server.kill()
    assert places_of(SECRET, tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("norm_stats", "--dataset", "{dataset}", "--output", "out"),
        ("sync", "--output", "out"),
        ("promote", "0" * 32, "--output", "out"),
        ("promote", "--rollback", "--output", "out"),
        ("compare", "0" * 32, "--output", "out"),
        ("lineage", "0" * 32),
        ("serve", "models:/stack-cube@champion"),
        ("serve", "models:/stack-cube/1"),
    ],
    ids=lambda arguments: "-".join(arguments[:2]).replace("/", " "),
)
def test_a_server_that_is_down_is_named_without_its_password(
    invoke, dead_uri, small_dataset, tmp_path, monkeypatch, arguments
):
    use_dead_server(monkeypatch, with_password(dead_uri))
    result = invoke(*(str(small_dataset) if each == "{dataset}" else each for each in arguments))
    assert SECRET not in result.output + repr(result.exception)
    assert "Traceback" not in result.output
    assert places_of(SECRET, tmp_path) == []
