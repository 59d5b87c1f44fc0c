"""The package in examples/reach-plugin, installed beside this project: a task that nothing here knows."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import site
import sqlite3
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_verbs import Verbs
from support import SMALL_PRESET

PROJECT = Path(__file__).parents[2]
TASK = "reach-plugin/reach"
EXAMPLE = PROJECT / "examples" / "reach-plugin"
Verb = Callable[..., str]


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory) -> Path:
    """A virtual environment that has the example, by its own pyproject.toml, and sees what this one has."""
    directory = tmp_path_factory.mktemp("venv")
    venv.create(directory, symlinks=True)
    packages = next(directory.glob("lib/python*/site-packages"))
    (packages / "seen.pth").write_text("\n".join([str(PROJECT), *site.getsitepackages()]))
    source = shutil.copytree(EXAMPLE, directory / "reach-plugin")  # building leaves files beside it
    if importlib.util.find_spec("pip") and importlib.util.find_spec("setuptools"):
        install = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-index"]
    elif uv := shutil.which("uv"):
        install = [uv, "pip", "install"]
    else:
        pytest.skip("neither pip with setuptools nor uv is there to install a package with")
    subprocess.run([*install, "--quiet", "--no-deps", "--target", str(packages), str(source)], check=True)
    return directory / "bin" / "python"


@pytest.fixture(scope="module")
def verb(interpreter, tmp_path_factory) -> Iterator[Verb]:
    """Runs a verb in that environment; returns what it prints."""
    directory = tmp_path_factory.mktemp("work")
    verbs = Verbs(interpreter)

    def run(*arguments: str | Path | int) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(directory)
            for name in [each for each in os.environ if each.startswith("MLFLOW")]:
                patch.delenv(name)
            patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{directory}/mlflow.db")
            process = verbs.start([str(each) for each in arguments])
        out, err = process.communicate()
        assert process.returncode == 0, out + err
        return out

    run.directory = directory  # type: ignore[attr-defined]
    yield run
    verbs.close()


def lines_of(directory: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for file in directory.rglob(name) for line in file.read_text().splitlines()]


def test_it_is_listed_and_shown(verb) -> None:
    (line,) = (line for line in verb("task", "list").splitlines() if TASK in line)
    assert "reach-plugin, reach_plugin:reach" in line
    shown = verb("task", "show", TASK)
    assert "reach the green goal" in shown
    assert "reach_plugin:Oracle" in shown


def test_here_nothing_knows_it() -> None:
    from rlinf_isaac.tasks.registry import task_names

    assert TASK not in task_names()
    places = [path for room in ("rlinf_isaac", "mlflow_project") for path in (PROJECT / room).rglob("*.py")]
    assert not [path for path in places if "reach_plugin" in path.read_text() or "reach-plugin" in path.read_text()]


def test_it_is_about_forty_lines() -> None:
    lines = (EXAMPLE / "reach_plugin.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 45


def test_demonstrations_training_evaluation_and_its_own_number(verb) -> None:
    root = verb.directory
    out = ("--output", root / "out", "--preset", SMALL_PRESET)
    verb("demos", "--task", TASK, "--episodes", 12, *out)
    (info,) = root.glob("out/**/meta/info.json")
    dataset = info.parents[1]
    features = json.loads(info.read_text())["features"]
    assert features["observation.images.top"]["shape"] == [64, 64, 3]
    verb("sft", "--task", TASK, "--dataset", dataset, *out)
    checkpoints = next(root.glob("out/**/checkpoints"))
    # The task comes from the checkpoint.
    verb("eval", "--ckpt-root", checkpoints, "--ckpt-steps", "2,6", "--episodes", 3, "--output", root / "out")
    rows = [row for row in lines_of(root / "out", "episodes.jsonl") if "checkpoint_step" in row]
    assert len(rows) == 6
    assert all(row["extras"]["distance"] > 0 for row in rows)
    with sqlite3.connect(root / "mlflow.db") as database:
        values = [each for (each,) in database.execute("SELECT value FROM metrics WHERE key = 'eval/extra/distance'")]
    assert len(values) == 2
    means = sorted(sum(r["extras"]["distance"] for r in rows if r["checkpoint_step"] == s) / 3 for s in (2, 6))
    assert sorted(values) == pytest.approx(means)
    tables = [json.loads(file.read_text()) for file in (root / "mlruns").rglob("episodes.json")]
    assert tables
    assert all("extra/distance" in table["columns"] for table in tables)
    (page,) = (root / "mlruns").rglob("comparison.html")
    assert "<th>distance</th>" in page.read_text()
