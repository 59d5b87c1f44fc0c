from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlflow_project.cli import cli

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def invoke(store) -> Callable[..., Result]:
    """Run a verb in this process, in the test's empty directory with its own store."""

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def start(store) -> Callable[..., subprocess.Popen]:
    """Start a verb as a process of its own, as a user does."""
    processes = []

    def run(*arguments: str | Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "mlflow_project.cli", *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()
