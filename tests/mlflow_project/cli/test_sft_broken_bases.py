"""Bases that cannot be started from: each is refused before torch is imported, with its cause and its cure."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import SMALL_PRESET

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
Build = Callable[[Path], object]
BROKEN: dict[str, tuple[str, Build]] = {}
"""Name -> the code that refuses it, and what breaks the sound base in a directory."""


def breaks(code: str):
    def note(build: Build) -> Build:
        BROKEN[build.__name__] = (code, build)
        return build

    return note


def rewrite(root: Path, change: Callable[[dict], object]) -> None:
    """The base's weights with something changed."""
    tensors = load_file(root / WEIGHTS)
    change(tensors)
    save_file(tensors, root / WEIGHTS, metadata={"format": "pt"})


def describe(root: Path, **values: object) -> None:
    (root / "config.json").write_text(json.dumps(values))


def shards(root: Path, count: int = 3) -> list[str]:
    """The base's weights in several files."""
    tensors = load_file(root / WEIGHTS)
    names = [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    for number, name in enumerate(names):
        save_file({key: tensors[key] for key in sorted(tensors)[number::count]}, root / name)
    (root / WEIGHTS).unlink()
    return names


@breaks("missing-base")
def a_directory_that_is_not_there(root):
    shutil.rmtree(root)


@breaks("no-weights")
def an_empty_directory(root):
    (root / WEIGHTS).unlink()


@breaks("no-weights")
def a_config_alone(root):
    (root / WEIGHTS).unlink()
    describe(root, action_dim=32, action_horizon=8, paligemma_variant="dummy", action_expert_variant="dummy")


@breaks("weights-file-missing")
def a_shard_that_the_index_names(root):
    names = shards(root)
    weight_map = {key: name for name in names for key in load_file(root / name)}
    (root / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (root / names[1]).unlink()


@breaks("weights-file-missing")
def a_numbered_shard(root):
    (root / shards(root)[2]).unlink()


@breaks("weights-index")
def an_index_of_other_shards(root):
    names = shards(root)
    weight_map = {key: names[0] for name in names for key in load_file(root / name)}
    (root / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name in names[1:]:
        (root / name).unlink()


@breaks("stray-weights")
def a_file_that_no_index_names(root):
    names = shards(root)
    weight_map = {key: name for name in names for key in load_file(root / name)}
    (root / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    save_file({"x": torch.zeros(1)}, root / "other.safetensors")


@breaks("damaged-safetensors")
def half_a_download(root):
    os.truncate(root / WEIGHTS, (root / WEIGHTS).stat().st_size // 2)


@breaks("damaged-safetensors")
def a_pointer_of_git_lfs(root):
    (root / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7000000000\n")


@breaks("damaged-safetensors")
def an_empty_file(root):
    (root / WEIGHTS).write_bytes(b"")


@breaks("weights-unreadable")
def a_named_pipe(root):
    (root / WEIGHTS).unlink()
    os.mkfifo(root / WEIGHTS)


@breaks("weights-keys")
def a_renamed_key(root):
    rewrite(root, lambda tensors: tensors.update(state_projection=tensors.pop("state_proj.weight")))


@breaks("weights-keys")
def a_missing_key(root):
    rewrite(root, lambda tensors: tensors.pop("action_out_proj.bias"))


@breaks("weights-keys")
def a_key_too_many(root):
    rewrite(root, lambda tensors: tensors.update({"lora.weight": torch.zeros(2)}))


@breaks("weights-keys")
def a_layer_less(root):
    def change(tensors):
        for name in [name for name in tensors if "gemma_expert.model.layers.1." in name]:
            del tensors[name]

    rewrite(root, change)


@breaks("weights-shapes")
def wrong_dims(root):
    rewrite(root, lambda tensors: tensors.update({"state_proj.weight": torch.zeros(3, 3)}))


@breaks("weights-dtype")
def quantised_weights(root):
    rewrite(root, lambda tensors: tensors.update({k: v.to(torch.int8) for k, v in tensors.items()}))


@breaks("two-models")
def two_models_in_one(root):
    rewrite(root, lambda tensors: tensors.update({f"_orig_mod.{k}": v.clone() for k, v in list(tensors.items())}))


@breaks("ambiguous-weights")
def two_files_with_the_same_names(root):
    shutil.copyfile(root / WEIGHTS, root / "model_ema.safetensors")


@breaks("several-checkpoints")
def a_directory_of_steps(root):
    for step in ("1000", "2000"):
        (root / step).mkdir()
        shutil.copyfile(root / WEIGHTS, root / step / WEIGHTS)
    (root / WEIGHTS).unlink()


@breaks("peft-adapter")
def an_adapter_without_its_base(root):
    (root / WEIGHTS).rename(root / "adapter_model.safetensors")
    (root / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 16}))


@breaks("checkpoint-config-unsupported")
def a_policy_of_another_kind(root):
    describe(root, type="act", chunk_size=100)


@breaks("checkpoint-config-unsupported")
def a_normalisation_that_is_not_done_here(root):
    describe(root, type="pi0", normalization_mapping={"STATE": "MIN_MAX", "ACTION": "MIN_MAX"})


@breaks("checkpoint-config-value")
def a_horizon_in_words(root):
    describe(root, action_dim=32, action_horizon="fifty", paligemma_variant="dummy", action_expert_variant="dummy")


@breaks("checkpoint-config-value")
def a_variant_that_is_not_known(root):
    describe(root, action_dim=32, action_horizon=8, paligemma_variant="gemma_9b", action_expert_variant="dummy")


@breaks("checkpoint-config-damaged")
def a_config_cut_short(root):
    (root / "config.json").write_text('{"action_dim": 32, "action_hor')


@breaks("checkpoint-config-contradiction")
def a_config_of_pi05_beside_pi0(root):
    describe(root, type="pi05", chunk_size=8, max_action_dim=32)


@breaks("manifest-damaged")
def a_manifest_that_is_none(root):
    (root / "bundle.json").write_text("{}")


@breaks("damaged-torch-file")
def a_torch_file_cut_short(root):
    torch.save(load_file(root / WEIGHTS), root / "weights.pt")
    (root / WEIGHTS).unlink()
    os.truncate(root / "weights.pt", (root / "weights.pt").stat().st_size // 2)


class Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


@breaks("unsafe-pickle")
def a_torch_file_that_runs_code(root):
    torch.save({"model": Code()}, root / "weights.pt", pickle_module=pickle)
    (root / WEIGHTS).unlink()


@breaks("weights-file-missing")
def a_distributed_checkpoint_without_its_metadata(root):
    (root / WEIGHTS).unlink()
    (root / "dcp_checkpoint").mkdir()
    (root / "dcp_checkpoint" / "__0_0.distcp").write_bytes(np.zeros(8).tobytes())


RUN = """
import json, sys
from click.testing import CliRunner
from mlflow_project.cli import cli
for line in sys.stdin:
    name, words = json.loads(line)
    result = CliRunner().invoke(cli, words)
    error = "" if isinstance(result.exception, SystemExit) else repr(result.exception)
    print(json.dumps([name, result.exit_code, result.stderr + error, "torch" in sys.modules]), flush=True)
"""


@pytest.fixture(scope="module")
def answers(small_checkpoints, small_dataset, tmp_path_factory):
    """Name -> exit code, stderr and whether torch was imported, of each attempt to start from a broken base."""
    directory = tmp_path_factory.mktemp("bases")
    orders = []
    for name, (_, build) in BROKEN.items():
        root = directory / name
        root.mkdir()
        shutil.copyfile(small_checkpoints / "6" / WEIGHTS, root / WEIGHTS)
        build(root)
        words = ["sft", "--dataset", small_dataset, "--base", root, "--preset", SMALL_PRESET, "--output", "out"]
        orders.append(json.dumps([name, [str(word) for word in words]]))
    command = [sys.executable, "-c", RUN]
    text = "\n".join(orders)
    done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=directory, check=True)
    assert not (directory / "out").exists()
    assert not (directory / "executed").exists()
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_base_is_refused_with_cause_and_cure(name, answers):
    code, stderr, has_torch = answers[name]
    assert code == 2, stderr
    assert f"error {BROKEN[name][0]} " in stderr
    assert "cure " in stderr
    assert "--weights" not in stderr  # which `sft` does not have
    assert not has_torch


def test_there_are_thirty():
    assert len(BROKEN) >= 30
