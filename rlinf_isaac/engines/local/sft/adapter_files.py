"""What trained beside a base, in the two files of `peft`: ``adapter_model.safetensors`` and ``adapter_config.json``.

Adapters are named ``base_model.model.<layer>.lora_A.weight`` (rank, I) and ``lora_B.weight`` (O, rank). What else
trained (vision tower, projections) is there whole, as ``base_model.model.<module>.<parameter>`` of what the config
calls ``modules_to_save``. So `peft` makes of the base, in a module with OpenPI's names, what the bundle of the same
step holds before that is rounded. Source of the format: ``utils/save_and_load.py`` of `peft`, whose 0.17.1 merges
these files into the base to the same float32 numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
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
"""Regular expressions over names of layers, as `peft` matches them."""


def write_adapters(directory: Path, trained: Mapping[str, Tensor], config: JobConfig) -> None:
    """Write both files, in place of what lay there.

    Args:
        directory: of its own.
        trained: name -> value of every parameter that trained.
        config: of the job.
    """
    tensors = {_stored_as(name): tensor.detach().cpu().contiguous() for name, tensor in sorted(trained.items())}
    whole = [_module_of(name) for name in sorted(trained) if not is_adapter(name)]
    with new_directory(directory, replace=True) as temporary:
        (temporary / CONFIG).write_text(json.dumps(_config(config, list(dict.fromkeys(whole))), indent=2) + "\n")
        save_file(tensors, temporary / MODEL, metadata={"format": "pt"})
        (temporary / MODEL).chmod((temporary / CONFIG).stat().st_mode)


def _stored_as(name: str) -> str:
    return f"{PREFIX}{name}.weight" if is_adapter(name) else f"{PREFIX}{name}"


def _module_of(name: str) -> str:
    """What of the model is saved whole: the vision tower, or a single layer."""
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
