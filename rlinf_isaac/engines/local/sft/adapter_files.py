"""Writes the trained parameters of a LoRA fine-tuning in the format of `peft`: ``adapter_model.safetensors`` and
``adapter_config.json``.

Adapters are named ``base_model.model.<layer>.lora_A.weight`` (rank, I) and ``lora_B.weight`` (O, rank). Other trained
modules (vision tower, projections) are stored whole, as ``base_model.model.<module>.<parameter>``, and listed in the
config's ``modules_to_save``. If `peft` loads these files into the base, in a module with OpenPI's names, the merged
weights are those of the bundle of the same step before rounding. Source of the format: ``utils/save_and_load.py`` of
`peft`; version 0.17.1 merges these files into the base with the same float32 result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.atomic import new_directory
from rlinf_isaac.pi0.lora import is_adapter
from rlinf_isaac.pi0.trainable import VISION

MODEL, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FILES = (CONFIG, MODEL)
PREFIX = "base_model.model."
OF_THE_EXPERT = r"gemma_expert\.model\.layers\.\d+\..*"
TARGETS = (
    r"paligemma_with_expert\.(paligemma\.model\.language_model|gemma_expert\.model)\.layers\.\d+"
    r"\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
)
"""Regular expression that matches the names of the adapted layers, in `peft`'s syntax."""


def write_adapters(directory: Path, trained: Mapping[str, Tensor], config: JobConfig) -> None:
    """Write both files; an existing directory is replaced.

    Args:
        directory: directory for these two files alone.
        trained: name -> value of every trained parameter.
        config: config of the job.
    """
    tensors = {_stored_as(name): tensor.detach().cpu().contiguous() for name, tensor in sorted(trained.items())}
    whole = [_module_of(name) for name in sorted(trained) if not is_adapter(name)]
    with new_directory(directory, replace=True) as temporary:
        (temporary / CONFIG).write_text(json.dumps(_config(config, list(dict.fromkeys(whole))), indent=2) + "\n")
        save_file(tensors, temporary / MODEL, metadata={"format": "pt"})
        (temporary / MODEL).chmod((temporary / CONFIG).stat().st_mode)


def read_adapters(directory: Path) -> dict[str, Tensor]:
    """Name -> value of every trained parameter, as `write_adapters` got them."""
    found = {}
    for stored, value in load_file(directory / MODEL).items():
        name = stored.removeprefix(PREFIX)
        adapter = name.removesuffix(".weight")
        found[adapter if is_adapter(adapter) else name] = value
    return found


def _stored_as(name: str) -> str:
    return f"{PREFIX}{name}.weight" if is_adapter(name) else f"{PREFIX}{name}"


def _module_of(name: str) -> str:
    """Name of the module that is saved whole because of the parameter `name`: the vision tower, or a single layer."""
    return VISION.rstrip(".") if name.startswith(VISION) else name.rpartition(".")[0]


def _config(config: JobConfig, whole: list[str]) -> dict[str, Any]:
    lora = config.sft.lora
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "target_modules": TARGETS,
        "modules_to_save": whole,
        "r": lora.vlm_rank,
        "lora_alpha": lora.vlm_alpha,
        "rank_pattern": {OF_THE_EXPERT: lora.expert_rank},
        "alpha_pattern": {OF_THE_EXPERT: lora.expert_alpha},
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
    }
