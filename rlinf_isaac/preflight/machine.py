"""What a job takes of this machine: room on the disk, a GPU."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.envs.isaaclab.versions import PYTHON_VARIABLE, check_python
from rlinf_isaac.errors import Problem
from rlinf_isaac.pi0.layout import state_dict_shapes


def training_bytes(config: JobConfig) -> int:
    """About what fine-tuning leaves on the disk: every checkpoint in fp32, and the optimiser's state (three times)."""
    return _training_bytes(config, math.ceil(config.sft.steps / config.sft.save_interval))


def reinforcement_bytes(config: JobConfig) -> int:
    """About what reinforcement learning from one checkpoint leaves on the disk, as `training_bytes`."""
    return _training_bytes(config, math.ceil(config.rl.iterations / config.rl.save_interval))


def _training_bytes(config: JobConfig, checkpoints: int) -> int:
    parameters = sum(math.prod(shape) for shape in state_dict_shapes(config.model).values())
    return 4 * parameters * (checkpoints + 3)


def demonstration_bytes(config: JobConfig) -> int:
    """About what demonstrations take: two PNG images per frame, a third of their raw size."""
    return config.demos.episodes * config.env.max_episode_steps * 2 * config.env.image_size**2


def check_simulator(config: JobConfig) -> list[Problem]:
    """Whether a simulator that has an interpreter of its own is there. Nothing heavy is imported in that either."""
    return check_python(os.environ.get(PYTHON_VARIABLE)) if config.env.backend == "isaaclab" else []


def check_device(config: JobConfig) -> list[Problem]:
    """A CUDA device where there is no NVIDIA driver; found out without importing torch."""
    device = config.compute.device
    if device.split(":")[0] not in ("cpu", "cuda", "mps"):
        return [Problem("bad-value", f"compute.device is {device}", "set it to cpu, cuda, cuda:<n> or mps")]
    if device.startswith("cuda") and not Path("/proc/driver/nvidia").exists() and shutil.which("nvidia-smi") is None:
        cause = f"compute.device is {device}, but this machine has no NVIDIA driver"
        return [Problem("no-gpu", cause, "pass --device cpu, or --preset tiny which is made for it")]
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if device == "cuda" and 0 < gpus < config.compute.num_processes:
        cause = f"compute.num_processes is {config.compute.num_processes}, but this machine has {gpus} GPUs"
        return [Problem("few-gpus", cause, f"set it to {gpus} or less")]
    return []
