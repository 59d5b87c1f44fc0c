"""Whether a GPU can hold a fine-tuning, before torch is imported."""

from __future__ import annotations

from rlinf_isaac.config.reads import acts
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.local.sft.memory import GIB, advice, training_memory
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.ground.probe import output_of

_MIB = 1 << 20


def check_memory(config: JobConfig, form: str = "main") -> list[Problem]:
    """A warning where the estimate (`training_memory`) exceeds the memory of this machine's smallest GPU.

    None where the job trains elsewhere, or nobody says how much a GPU has.
    """
    if not acts(form, "compute.device", config) or not config.compute.device.startswith("cuda"):
        return []
    available, needed = gpu_memory(), training_memory(config).peak
    if available is None or needed <= available:
        return []
    cause = f"sft takes about {needed / GIB:.1f} GiB of GPU memory, and a GPU here has {available / GIB:.1f}"
    return [Problem("gpu-memory", cause, f"add one of these to --overrides: {advice(config)}", "warning")]


def gpu_memory() -> int | None:
    """Bytes of the smallest NVIDIA GPU of this machine, as ``nvidia-smi`` says; None where it says nothing."""
    text = (output_of("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits") or b"").decode()
    sizes = [int(word) for word in text.split() if word.isdecimal()]
    return min(sizes) * _MIB if sizes else None
