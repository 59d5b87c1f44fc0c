"""Whether a GPU can hold a fine-tuning, before torch is imported."""

from __future__ import annotations

import os
from dataclasses import replace

from rlinf_isaac.config.reads import acts
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.local.rl.memory import as_fine_tuning, free_memory, plan_on_gpu, prefix_tokens
from rlinf_isaac.engines.local.rl.share import divided
from rlinf_isaac.engines.local.sft.memory import GIB, advice, training_memory
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.probe import output_of

_MIB = 1 << 20


def check_memory(config: JobConfig, form: str = "main") -> list[Problem]:
    """A warning where the estimate (`training_memory`) exceeds the memory of this machine's smallest GPU.

    Of a training on the CPU an error where it exceeds all of the machine's memory, which kills the process, and a
    warning where it exceeds what is free. None where the job trains elsewhere, or nobody says how much there is.
    """
    if not acts(form, "compute.device", config):
        return []
    if config.compute.device == "cpu":
        return _check_cpu_memory(config)
    if not config.compute.device.startswith("cuda"):
        return []
    available, needed = gpu_memory(), training_memory(config).peak
    if available is None or needed <= available:
        return []
    cause = f"sft takes about {needed / GIB:.1f} GiB of GPU memory, and a GPU here has {available / GIB:.1f}"
    return [Problem("gpu-memory", cause, f"add one of these to --overrides: {advice(config)}", "warning")]


def _check_cpu_memory(config: JobConfig) -> list[Problem]:
    place, processes = launch(), config.compute.num_processes
    needed = training_memory(config).peak * (processes if place is None else place.local_size)
    try:
        free, all_of_it = free_memory(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, KeyError):  # not Linux
        return []
    if needed <= free:
        return []
    cause = f"sft takes about {needed / GIB:.1f} GiB of memory, and this machine has {free / GIB:.1f} free"
    cure = f"choose a smaller sft.batch_size, or add one of these to --overrides: {advice(config)}"
    if needed > all_of_it:
        return [Problem("cpu-memory", cause, cure)]
    return [Problem("cpu-memory", cause, cure, "warning")]


def check_rl_memory(config: JobConfig, form: str = "rl") -> list[Problem]:
    """A warning where the estimate (`plan_on_gpu`) of what `rl` keeps exceeds the memory of this machine's smallest
    GPU, or the machine's. The training itself looks again, at what is free when it begins."""
    if not acts(form, "rl.micro_batch", config):
        return []
    place, processes = launch(), config.compute.num_processes
    here, config = processes if place is None else place.local_size, divided(config, processes)
    available, takes = gpu_memory(), training_memory(as_fine_tuning(config))
    if available is None:
        return []
    try:
        tokens = prefix_tokens(config, config.model.max_token_len)
        plan_on_gpu(config, tokens, available - takes.weights - takes.copies, free_memory() // here)
    except InvalidJob as error:
        return [replace(problem, level="warning") for problem in error.problems]
    return []


def gpu_memory() -> int | None:
    """Bytes of the smallest NVIDIA GPU of this machine, as ``nvidia-smi`` says; None where it says nothing."""
    text = (output_of("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits") or b"").decode()
    sizes = [int(word) for word in text.split() if word.isdecimal()]
    return min(sizes) * _MIB if sizes else None
