"""The notebooks run, cell by cell, in a kernel of their own."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from support import SMALL_PRESET

PROJECT = Path(__file__).parents[2]
NOTEBOOKS = sorted((PROJECT / "examples" / "notebooks").glob("*.ipynb"))
SMALLER = {
    'preset = "tiny"': f'preset = "{SMALL_PRESET}"',
    "episodes=12)": "episodes=2)",
    "steps=60, save_interval=30": "steps=4, save_interval=2",
    "episodes=8, videos=0": 'episodes=2, videos=0, overrides={"env.max_episode_steps": 16}',
}
LEAN = 200_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    """With small numbers in place of its own. What it prints is readable: lines of progress, no page per line."""
    import nbformat
    from nbclient import NotebookClient

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])))
    text = path.read_text(encoding="utf-8")
    for written, instead in SMALLER.items():
        quoted = json.dumps(written)[1:-1]
        assert quoted in text, written
        text = text.replace(quoted, json.dumps(instead)[1:-1])
    notebook = nbformat.reads(text, as_version=4)
    NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join(output.get("text", "") for output in outputs)
    assert re.search(r"sft .*4/4", shown)
    assert "\x1b" not in shown, "no control sequences"
    displayed = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    assert sum("image/png" in data for data in displayed) == 2
    assert any("<table" in data.get("text/html", "") for data in displayed)
    assert not any("<pre" in data.get("text/html", "") for data in displayed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_lean_and_as_it_ran(path):
    """With its outputs, in order, without an error, and without a name of the machine that ran it."""
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(text) < LEAN
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(output["output_type"] != "error" for cell in code for output in cell["outputs"])
    assert "/tmp/" not in text
    assert "/home/" not in text
