from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config import load_config
from rlinf_isaac.errors import InvalidJob
from rlinf_isaac.preflight import (
    check_bundles,
    check_config,
    check_dataset,
    check_device,
    check_free_space,
    raise_if_any,
)


def codes(problems):
    return [problem.code for problem in problems]


def test_the_shipped_cpu_presets_have_no_problem():
    for preset in ("tiny", "small"):
        assert check_config(load_config(preset)) == []


@pytest.mark.parametrize(
    "override",
    [
        "sft.lr=nan",
        "sft.lr=inf",
        "sft.lr=0",
        "sft.steps=0",
        "sft.beta1=1.0",
        "sft.flow_samples=0",
        "eval.episodes=0",
        "eval.video_size=17",
        "eval.first_seed=-1",
        "env.task=stack4",
        "env.renderer=gl",
        "env.backend=isaaclab",
        "policy.state_layout=pixels",
        "policy.norm=minmax",
        "demos.noise=-0.1",
    ],
)
def test_values_out_of_range_name_the_key_and_the_range(override):
    (problem,) = check_config(load_config("tiny", [override]))
    assert problem.code == "bad-value"
    assert problem.cause.startswith(override.split("=")[0])
    assert problem.cure.startswith("set it to ")


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("model.vision.patch_size=15", "patch-size"),
        ("model.vision.num_heads=5", "vision-heads"),
        ("model.expert.depth=3", "expert-shape"),
        ("policy.action_chunk=20", "chunk-horizon"),
        ("policy.tokenizer=/nowhere/paligemma.model", "no-tokenizer"),
        ("model.action_dim=16", "state-dim"),
    ],
)
def test_values_that_do_not_fit_each_other(override, code):
    assert codes(check_config(load_config("tiny", [override]))) == [code]


def test_steps_that_the_chunk_does_not_divide_come_with_the_two_nearest():
    (problem,) = check_config(load_config("tiny", ["env.max_episode_steps=250"]))
    assert (problem.code, problem.cure) == ("steps-chunk", "use 248 or 256")
    (problem,) = check_config(load_config("tiny", ["env.max_episode_steps=5"]))
    assert problem.cure == "use 8"


def test_the_expert_may_be_wider_than_the_vlm():
    assert check_config(load_config("tiny", ["model.expert.width=96", "model.expert.mlp_dim=200"])) == []


def test_a_dataset_of_the_job_has_no_problem(small_dataset):
    assert check_dataset(small_config(), small_dataset) == []


def test_a_dataset_that_differs_is_described(small_dataset, tmp_path):
    root = tmp_path / "other"
    shutil.copytree(small_dataset, root)
    info = json.loads((root / "meta" / "info.json").read_text())
    info["fps"] = 30
    info["features"]["observation.images.side"] = info["features"].pop("observation.images.wrist")
    (root / "meta" / "info.json").write_text(json.dumps(info))
    tasks = (root / "meta" / "tasks.jsonl").read_text()
    (root / "meta" / "tasks.jsonl").write_text(tasks.replace("Stack", "Pile"))
    problems = check_dataset(small_config(["policy.state_layout=proprio"]), root)
    assert sorted(codes(problems)) == ["feature-dim", "fps", "no-feature", "prompt"]
    assert "observation.images.side" in next(problem.cause for problem in problems if problem.code == "no-feature")


def test_cuda_without_a_driver(monkeypatch):
    config = load_config("tiny", ["compute.device=cuda:0"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)
    assert codes(check_device(config)) == ["no-gpu"]
    assert check_device(load_config("tiny")) == []


def test_free_space_is_that_of_the_nearest_existing_parent(tmp_path):
    assert check_free_space(tmp_path / "not" / "yet" / "there", 1) == []
    (problem,) = check_free_space(tmp_path / "not", 1 << 60)
    assert problem.code == "disk-space"


def test_checkpoints_of_one_training_belong_together(small_checkpoints):
    bundles = [read_bundle(small_checkpoints / str(step)) for step in (2, 4, 6)]
    assert check_bundles(bundles) == []
    lineage = dict(bundles[1].lineage) | {"dataset": "0" * 64}
    stranger = replace(bundles[1], manifest=replace(bundles[1].manifest, lineage=lineage))
    assert codes(check_bundles([bundles[0], stranger])) == ["mixed-checkpoints"]
    swapped = replace(bundles[0], norm_stats_bytes=b"{}")
    assert codes(check_bundles([swapped])) == ["norm-stats-mismatch"]


def test_raise_if_any_carries_all_problems():
    raise_if_any([])
    with pytest.raises(InvalidJob) as caught:
        raise_if_any(check_config(load_config("tiny", ["sft.lr=-1", "eval.episodes=0"])))
    assert len(caught.value.problems) == 2


def test_it_imports_neither_torch_nor_a_simulator():
    code = "import sys, rlinf_isaac.preflight\nprint([n for n in ('torch', 'mujoco', 'mlflow') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
