from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rlinf_isaac

# Modules of `name` and below are importable, and those of the standard library and numpy; nothing else is.
ALONE = """
import sys
sys.path.append({root!r})

class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "rlinf_isaac"):
            raise ModuleNotFoundError(f"No module named {{name!r}}")

sys.meta_path.insert(0, Nothing())
import {name}
"""


@pytest.mark.parametrize(
    "name",
    [
        "rlinf_isaac.envs.host.worker.rows",
        "rlinf_isaac.envs.isaaclab.options",
        "rlinf_isaac.envs.isaaclab.kinematics",
        "rlinf_isaac.tasks.shipped.metaworld",
    ],
)
def test_what_runs_in_other_interpreters_needs_numpy_alone(name) -> None:
    root = str(Path(rlinf_isaac.__file__).parents[1])
    subprocess.run([sys.executable, "-I", "-c", ALONE.format(root=root, name=name)], check=True)


def test_that_is_not_true_of_everything() -> None:
    root = str(Path(rlinf_isaac.__file__).parents[1])
    command = [sys.executable, "-I", "-c", ALONE.format(root=root, name="rlinf_isaac.config")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "No module named 'omegaconf'" in done.stderr
