"""Types what docs/quickstart.md and docs/your_dataset.md say into a shell, in an empty directory, at a small size."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from docs_commands import PLACEHOLDER, Block, blocks
from readme_lines import ROOT
from robots import Robot

from rlinf_isaac.checkpoint.bundle import read_bundle

pytestmark = pytest.mark.slow

MY_ROBOT = Robot(
    "my_robot",
    fps=20,
    state=8,
    action=7,
    names=("x", "y", "z", "roll", "pitch", "yaw", "finger_l", "finger_r"),
    cameras={"base_0_rgb": "observation.images.overhead", "left_wrist_0_rgb": "observation.images.hand_eye"},
    sent={},
    prompts=("put the red cube on the blue one",),
    robot_type="franka",
)
"""The robot of docs/your_dataset.md."""


@pytest.fixture
def directory(tmp_path, monkeypatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def to_type(page: str) -> Iterator[tuple[str, Block]]:
    """The blocks of a page that can be typed as they stand, each as one line of shell, with the test's options."""
    for block in blocks((ROOT / page).read_text(), page):
        words = [word for command in block.commands for word in command]
        if words[0] == "rlinf-isaac" and not block.needs and not any(map(PLACEHOLDER.fullmatch, words)):
            assert not any(re.search(r"[\s'\"]", word) for word in words), "quotes would be lost"
            yield " && ".join(" ".join(command) for command in block.commands) + f" {block.test or ''}", block


def typed(line: str) -> str:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_quickstart(directory):
    said = {line: typed(line) for line, _ in to_type("docs/quickstart.md")}
    assert [line.split()[1] for line in said] == ["main", "demos", "sft", "eval", "doctor"]
    first, *_, last = said.values()
    assert "Checkpoints by success" in first
    assert "comparison.html" in first
    assert "ready        yes" in last
    assert len(list(directory.glob("result/isaaclab_openpi/demos/stack2-*"))) == 1, (
        "the steps repeat what main has done"
    )
    assert len(list(directory.glob("result/isaaclab_openpi/sft/tiny-*"))) == 1


def test_your_dataset(directory):
    """As somebody would who has a dataset and does not know this project; the page's own lines ask the server."""
    MY_ROBOT.write(directory / "my_robot", episodes=4)
    page = (ROOT / "docs/your_dataset.md").read_text()
    served = False
    for line, _ in to_type("docs/your_dataset.md"):
        if " serve " not in line:
            typed(line)
            continue
        ask(line.replace("/600", "/4"), re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
        served = True
    assert served
    shown = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1]
    written = (directory / "my_robot.yaml").read_text()
    assert [entry for entry in shown.splitlines() if entry.partition("   #")[0] not in written] == []
    (checkpoint,) = directory.glob("result/isaaclab_openpi/sft/tiny-*/checkpoints/4")
    assert read_bundle(checkpoint).step == 4


def ask(line: str, python: str) -> None:
    """Start the server, and run the page's Python against it."""
    with subprocess.Popen(["bash", "-c", f"exec {line}"], stdout=subprocess.PIPE, text=True) as server:
        try:
            port = next(line.rpartition(":")[2] for line in server.stdout if "ws://127.0.0.1:" in line)
            frame = MY_ROBOT.frame(0, 0)
            values = {
                "overhead": frame["observation.images.overhead"],
                "hand_eye": frame["observation.images.hand_eye"],
                "state": frame["observation.state"],
            }
            exec(python.replace("8000", port.strip()), values)
        finally:
            server.terminate()
    assert values["chunk"].shape[1] == MY_ROBOT.action
    assert np.isfinite(values["chunk"]).all()
