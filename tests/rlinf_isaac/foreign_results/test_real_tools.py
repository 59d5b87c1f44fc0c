"""Files that the real tools write now, read here; each in an interpreter of its own that an environment variable names.

LEROBOT_PYTHON=lerobot-venv/bin/python VLA_EVAL_PYTHON=vla-eval-venv/bin/python \\
    python -m pytest -m 'guests or lerobot' tests/rlinf_isaac/foreign_results/test_real_tools.py
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from rlinf_isaac.foreign_results.model import Options
from rlinf_isaac.foreign_results.read import format_of, read_foreign

WRITERS = Path(__file__).parent / "writers"


def written(variable: str, script: str, folder: Path) -> None:
    if not (python := os.environ.get(variable)):
        pytest.skip(f"{variable} names no interpreter")
    subprocess.run([Path(python).absolute(), WRITERS / script], cwd=folder, check=True, capture_output=True)


@pytest.mark.lerobot
def test_lerobot(tmp_path):
    written("LEROBOT_PYTHON", "write_lerobot.py", tmp_path)
    for name, summary in (("one", "aggregated"), ("several", "overall")):
        results = read_foreign(tmp_path / name, format_of(tmp_path / name), Options())
        said = json.loads((tmp_path / name / "eval_info.json").read_text())[summary]
        n = sum(arm.n for arm in results.arms)
        assert 100 * sum(arm.successes for arm in results.arms) / n == pytest.approx(said["pc_success"])
        assert n == said.get("n_episodes", 8)
        assert sum(row.video is not None for arm in results.arms for row in arm.rows) == 2


@pytest.mark.guests
def test_vla_eval(tmp_path):
    written("VLA_EVAL_PYTHON", "write_vla_eval.py", tmp_path)
    said = json.loads((tmp_path / "trivial_aggregate.json").read_text())
    for name in ("trivial_aggregate.json", "recording-e1.sqlite"):
        results = read_foreign(tmp_path / name, format_of(tmp_path / name), Options())
        n = sum(arm.n for arm in results.arms)
        assert (n, sum(arm.successes for arm in results.arms) / n) == (said["num_episodes_total"], said["mean_success"])
