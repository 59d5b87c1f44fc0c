"""The verb `lineage` as its tests call it, and faults that they put back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from mlflow_project.cli import cli


def look_up(directory, subject, *arguments):
    """Exit code, chain, and the codes of its breaks, in the store of a directory."""
    words = ["lineage", str(subject), "--json", *map(str, arguments)]
    result = CliRunner().invoke(cli, words, env={"MLFLOW_TRACKING_URI": f"sqlite:///{directory / 'mlflow.db'}"})
    chain = json.loads(result.stdout)["chain"] if result.stdout.startswith("{") else None
    return result.exit_code, chain, [problem["code"] for node in walk(chain) for problem in node["problems"]]


def walk(node) -> Iterator[dict]:
    if node is not None:
        yield node
        for child in node["children"]:
            yield from walk(child)


def kinds(chain):
    return [node["kind"] for node in walk(chain)]


@contextmanager
def edited(path: Path, data: bytes):
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def swapped(left: Path, right: Path):
    aside = left.with_name("aside")

    def swap():
        left.rename(aside)
        right.rename(left)
        aside.rename(right)

    swap()
    try:
        yield
    finally:
        swap()
