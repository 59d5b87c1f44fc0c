"""The memory of the device while it trains: how much was used, and what to do where there is too little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.local.sft.memory import GIB, advice, training_memory
from rlinf_isaac.ground.errors import TrainingOutOfMemory


def peak_memory(device: torch.device) -> dict[str, float]:
    """``gpu/peak_memory_gib``: the most that tensors took of a CUDA device since the process began, in GiB (2^30)."""
    if device.type != "cuda":
        return {}
    return {"gpu/peak_memory_gib": torch.cuda.max_memory_allocated(device) / GIB}


@contextmanager
def explained(config: JobConfig) -> Iterator[None]:
    """What torch says where a device has too little memory, as an error that says what takes less.

    Raises:
        TrainingOutOfMemory: instead.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _error(config, error) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # torch has no class for this one
            raise
        raise _error(config, error) from error


def _error(config: JobConfig, error: RuntimeError) -> TrainingOutOfMemory:
    peak = training_memory(config).peak / GIB
    return TrainingOutOfMemory(
        f"{config.compute.device} has too little memory for this training, which takes about {peak:.1f} GiB of it: "
        f"{str(error).splitlines()[0][:200]}. These take less: {advice(config)}. They are other trainings, which begin "
        "anew; the checkpoints of this one are kept"
    )
