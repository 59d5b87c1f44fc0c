"""Adds a data config of OpenPI for stack-cube to RLinf, to run OpenPI's own model with RLinf's own mains.

RLinf 0.3 has only ``pi05_isaaclab_stack_cube``, and no function to add a config.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

PI05 = "pi05_isaaclab_stack_cube"
PI0 = "pi0_isaaclab_stack_cube"


def register_openpi_configs() -> None:
    """Add `PI0`, which is RLinf's `PI05` with OpenPI's pi0 instead of pi0.5, unless it exists. Does nothing without
    OpenPI."""
    if find_spec("openpi") is None:
        return
    from openpi.models.pi0_config import Pi0Config
    from openpi.training.weight_loaders import CheckpointWeightLoader
    from rlinf.models.embodiment.openpi.dataconfig import _CONFIGS_DICT

    pi0 = replace(
        _CONFIGS_DICT[PI05],
        name=PI0,
        model=Pi0Config(),
        weight_loader=CheckpointWeightLoader("checkpoints/jax/pi0_base/params"),
        pytorch_weight_path="checkpoints/torch/pi0_base",
    )
    _CONFIGS_DICT.setdefault(PI0, pi0)
