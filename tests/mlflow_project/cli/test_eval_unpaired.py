"""Checkpoints of a task whose environment, of RLinf's interface, takes no seeds: evaluated, and never paired."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

HOST = Path(__file__).parents[2] / "rlinf_isaac" / "envs" / "host"
PLANE = {
    "name": "plane",
    "prompt": "push the point to the middle",
    "control_hz": 10,
    "cameras": {"base_0_rgb": {"dataset": "observation.images.top", "env": "pixels/top"}},
    "state": {"dims": 2, "env": "point"},
    "action": {"dims": 2, "clip": [-1, 1]},
    "env": {"kind": "gymnasium", "make": "toy.py:Plane", "success": "info.solved", "max_steps": 40},
    "expert": "toy.py:Expert",
}
PLANES = {
    **{key: value for key, value in PLANE.items() if key != "expert"},
    "prompt": "dataset",
    "cameras": {"base_0_rgb": {"dataset": "observation.images.top", "env": "main_images"}},
    "state": {"dims": 2, "env": "states"},
    "env": {"kind": "rlinf", "make": "rlinf_toy.py:Planes", "success": "info.success>=1", "max_steps": 16},
}


@pytest.fixture
def tasks(tmp_path) -> Path:
    """The directory of the two tasks: one with an expert, one in RLinf's form."""
    for name in ("toy.py", "rlinf_toy.py"):
        (tmp_path / name).write_bytes((HOST / name).read_bytes())
    for name, values in (("plane", PLANE), ("planes", PLANES)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def test_two_checkpoints_are_compared_by_their_rates_alone(invoke, tasks, tmp_path, content, store):
    def done(*words: object) -> str:
        result = invoke(*words)
        assert result.exit_code == 0, result.output
        return result.output

    done("demos", "--task", tasks / "plane.yaml", "--episodes", 2, "--output", tmp_path)
    (dataset,) = (path for path in (tmp_path / "demos").iterdir() if path.is_dir())
    (dataset / "meta" / "provenance.json").unlink()  # as a stranger's dataset, which names no simulator
    few = ["--overrides", "sft.batch_size=2,norm_stats.batch_size=1,policy.action_chunk=8"]
    small = ["--steps", 2, "--save-interval", 1, *few]
    done("sft", "--task", tasks / "planes.yaml", "--dataset", dataset, *small, "--output", tmp_path)
    (root,) = (tmp_path / "sft").glob("*/checkpoints")
    played = ["--ckpt-root", root, "--output", tmp_path]
    text = " ".join(done("eval", *played, "--episodes", 3, "--videos", 0).split())
    assert "Not paired: the environment of plane takes no seed for an episode." in text
    settings = [run for run in content(store).runs.values() if "eval/success_once" in run["metrics"]]
    assert len(settings) == 2

    refused = invoke("eval", *played, "--until-decided")
    assert refused.exit_code == 2
    assert "env-unseeded" in refused.output
    refused = invoke("rl", "--ckpt-root", root, "--ckpt-steps", 2, "--output", tmp_path)
    assert refused.exit_code == 2
    assert "env-unseeded" in refused.output
