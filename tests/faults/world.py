"""What attacks edit copies of: a dataset, a checkpoint of ours and one of lerobot's, norm stats, weights, presets,
results of RLinf. All of it small, and right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import yaml
from corpus import foreign
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from support import SMALL_PRESET, write_scalars

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.write_bundle import seal
from rlinf_isaac.engines.rlinf.tensorboard import Scalar

SHARDS_INDEX = "shards/model.safetensors.index.json"
RUN_CONFIG = {"runner": {"task_type": "embodied", "logger": {"experiment_name": "ppo"}}, "actor": {"model": {}}}


def make_world(root: Path, dataset: Path, bundle: Path) -> Path:
    """Make it at `root` of a LeRobot dataset and a bundle."""
    shutil.copytree(dataset, root / "dataset")
    shutil.copytree(bundle, root / "ckpts" / bundle.name)
    (root / "stats").mkdir()
    shutil.copy(bundle / read_bundle(bundle).asset_id / "norm_stats.json", root / "stats")
    shutil.copy(SMALL_PRESET, root / "preset.yaml")
    foreign.dummy_preset(root / "dummy.yaml", pi05=False)
    foreign.save_lerobot(root / "policy", foreign.dummy_model(foreign.dummy_config(False)), "pi0")
    tensors = {f"layers.{layer}.weight": torch.full((16, 16), float(layer)) for layer in range(3)}
    torch.save(tensors, root / "model.pt")
    save_file(tensors, root / "model.safetensors")
    (root / "shards").mkdir()
    save_torch_state_dict(tensors, root / "shards", max_shard_size=1100)
    _results(root / "log")
    return root


def _results(root: Path) -> None:
    """What RLinf leaves, with a checkpoint."""
    (root / "tensorboard").mkdir(parents=True)
    write_scalars(root / "tensorboard/events.out.tfevents.1", [Scalar("train/loss", 1, 0.5, 1e9)])
    (root / "tensorboard/config.yaml").write_text(yaml.safe_dump(RUN_CONFIG))
    weights = root / "ppo/checkpoints/global_step_1/actor/model_state_dict"
    weights.mkdir(parents=True)
    torch.save({"weight": torch.ones(2)}, weights / "full_weights.pt")


def reseal(bundle: Path) -> None:
    """Write the manifest anew: whoever forges a bundle can do that, too."""
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    (bundle / "bundle.json").unlink()
    lineage, tied = manifest["lineage"], manifest["tensors"]["tied"]
    seal(bundle, asset_id=manifest["asset_id"], step=manifest["step"], lineage=lineage, tied=tied)
