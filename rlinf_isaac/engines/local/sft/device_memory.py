"""Reports the peak memory of the device, and explains how to use less memory if it runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.local.sft.memory import GIB, advice, training_memory
from rlinf_isaac.ground.errors import TrainingOutOfMemory


def peak_memory(device: torch.device) -> dict[str, float]:
    """``gpu/peak_memory_gib``: peak memory of the tensors on a CUDA device since the process began, in GiB (2^30)."""
    if device.type != "cuda":
        return {}
    return {"gpu/peak_memory_gib": torch.cuda.max_memory_allocated(device) / GIB}


@contextmanager
def explained(config: JobConfig, cure: str | None = None) -> Iterator[None]:
    """Convert torch's out-of-memory errors into an error that lists settings that need less memory.

    Args:
        config: config of the job.
        cure: these settings; None for those of a fine-tuning.

    Raises:
        TrainingOutOfMemory: the device has too little memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _error(config, error, cure) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):  # torch has no exception class for the CPU's out-of-memory error
            raise
        raise _error(config, error, cure) from error


def _error(config: JobConfig, error: RuntimeError, cure: str | None) -> TrainingOutOfMemory:
    takes = "" if cure else f", which takes about {training_memory(config).peak / GIB:.1f} GiB of it"
    return TrainingOutOfMemory(
        f"{config.compute.device} has too little memory for this training{takes}: "
        f"{str(error).splitlines()[0][:200]}. These settings take less: {cure or advice(config)}. With other settings "
        "the training starts anew; the checkpoints of this one are kept"
    )
