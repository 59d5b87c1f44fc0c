"""How busy this machine is: CPU, memory and GPUs, as far as psutil and NVIDIA's library are there to say."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_LOOK_S = 0.1
"""Seconds over which the use of the CPU is measured."""


@dataclass(frozen=True)
class Use:
    """Use of one resource: its name, the share from 0 to 1, and the figure in words."""

    name: str
    share: float
    text: str


def uses(pid: int | None = None) -> list[Use]:
    """What is used now; with `pid` also what that process and its children use. Never raises."""
    found = [*_cpu(), *_gpus()]
    if pid is not None:
        with suppress(Exception):
            found += _process(pid)
    return found


def _cpu() -> list[Use]:
    psutil = _optional("psutil")
    if psutil is None:
        with suppress(OSError):
            cores, load = os.cpu_count() or 1, os.getloadavg()[0]
            return [Use("cpu", load / cores, f"load {load:.1f} on {cores} cores")]
        return []
    memory, share = psutil.virtual_memory(), psutil.cpu_percent(_LOOK_S) / 100
    used = memory.total - memory.available
    return [
        Use("cpu", share, f"{100 * share:.0f} % of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"),
        Use("memory", used / memory.total, f"{used / 2**30:.1f} of {memory.total / 2**30:.0f} GiB"),
    ]


def _process(pid: int) -> list[Use]:
    psutil = _optional("psutil")
    if psutil is None:
        return []
    root = psutil.Process(pid)
    family = [root, *root.children(recursive=True)]
    memory = sum(each.memory_info().rss for each in family)
    share = memory / psutil.virtual_memory().total
    words = f"{memory / 2**30:.1f} GiB in {len(family)} process{'es' if len(family) > 1 else ''}"
    return [Use("this run", share, words)]


def _gpus() -> list[Use]:
    nvml = _optional("pynvml")
    if nvml is None:
        return []
    found = []
    with suppress(Exception):  # no driver, or one that refuses
        nvml.nvmlInit()
        for number in range(nvml.nvmlDeviceGetCount()):
            device = nvml.nvmlDeviceGetHandleByIndex(number)
            memory, busy = nvml.nvmlDeviceGetMemoryInfo(device), nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100
            text = f"{100 * busy:.0f} %, {memory.used / 2**30:.1f} of {memory.total / 2**30:.0f} GiB"
            found.append(Use(f"gpu {number}", busy, text))
    return found


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
