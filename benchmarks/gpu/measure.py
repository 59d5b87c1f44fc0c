"""Timing on a GPU, and the shapes that everything here is measured with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import ModelConfig
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.observation import CAMERAS, Observation
from rlinf_isaac.pi0.precision import to_precision

VIEWS, PROMPT, HORIZON, STEPS = 2, 48, 50, 10

TINY = bool(os.environ.get("GPU_BENCHMARK_TINY"))
"""Two small layers instead of each stack, on the CPU: shows that a stage runs. Its figures mean nothing."""
DEVICE = "cpu" if TINY else "cuda"
_STACK = {"width": 64, "depth": 2, "mlp_dim": 64, "num_heads": 1, "num_kv_heads": 1, "head_dim": 32}
SMALL = [f"model.{stack}.{name}={value}" for stack in ("vlm", "expert") for name, value in _STACK.items()]
SMALL += [f"model.vision.{name}={value}" for name, value in {"width": 64, "depth": 2, "mlp_dim": 64}.items()]
SMALL += ["model.vocab_size=512"]


class Timing(NamedTuple):
    """Milliseconds: median, fastest, slowest."""

    median: float
    best: float
    worst: float


def timed(function: Callable[[], object], repeats: int = 30, warmup: int = 3) -> Timing:
    """Device time of a call, with CUDA events around each."""
    if TINY:
        duration = seconds(function) * 1e3
        return Timing(duration, duration, duration)
    for _ in range(warmup):
        function()
    torch.cuda.synchronize()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in events:
        start.record()
        function()
        end.record()
    torch.cuda.synchronize()
    durations = sorted(start.elapsed_time(end) for start, end in events)
    return Timing(durations[repeats // 2], durations[0], durations[-1])


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call, its work on the device included."""
    start = time.perf_counter()
    function()
    if not TINY:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def full_config(preset: str) -> ModelConfig:
    """The full-size architecture; the horizon is 50 for pi0.5, too, so that the figures can be compared."""
    return load_config(preset, [f"model.action_horizon={HORIZON}", *(SMALL if TINY else [])]).model


def full_model(preset: str, dtype: str = "bfloat16") -> Pi0:
    """Random weights, all of which bfloat16 can hold: both number formats then mean the same model."""
    with torch.device(DEVICE):
        model = Pi0(full_config(preset))
    initialise(model, seed=0)
    generator = torch.Generator(DEVICE).manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # with their start values, pi0.5's norms would close every residual
                parameter.normal_(std=0.02 if "dense.weight" in name else 0.2, generator=generator)
            parameter.copy_(parameter.bfloat16())
    return to_precision(model, dtype).eval()


def observation(batch: int, *, padded: bool = False, seed: int = 0, prompt: int = PROMPT) -> Observation:
    """Two views; prompts of `prompt` tokens, of which a padded batch's rows have fewer. On the GPU."""
    generator = torch.Generator().manual_seed(seed)
    config = full_config("pi0")
    size = config.vision.image_size
    lengths = torch.randint(8, prompt, (batch, 1), generator=generator) if padded else torch.full((batch, 1), prompt)
    return Observation(
        images={camera: torch.rand(batch, 3, size, size, generator=generator) * 2 - 1 for camera in CAMERAS},
        image_masks={camera: torch.full((batch,), index < VIEWS) for index, camera in enumerate(CAMERAS)},
        state=torch.randn(batch, config.action_dim, generator=generator),
        prompt_tokens=torch.randint(0, config.vocab_size, (batch, prompt), generator=generator),
        prompt_mask=torch.arange(prompt) < lengths,
    ).to(DEVICE)


def flow(batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Actions, noise (B, H, A) and time (B,), on the GPU."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, HORIZON, full_config("pi0").action_dim)
    actions, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    time = torch.rand(batch, generator=generator) * 0.999 + 0.001
    return actions.to(DEVICE), noise.to(DEVICE), time.to(DEVICE)
