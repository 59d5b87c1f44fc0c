"""What is measured, stage by stage. A stage is a process: it starts on an empty GPU, and may fail alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import NamedTuple

import torch
from measure import HORIZON, STEPS, Timing, flow, full_config, full_model, observation, seconds, timed

from rlinf_isaac.pi0.fast.sampler import GraphSampler

ROWS = 2**31
"""Bytes of the copy that memory bandwidth is measured with: far more than any cache."""


class Row(NamedTuple):
    """A line of the table: what, its value with unit, and what to know about it."""

    what: str
    value: float
    unit: str
    note: str = ""


def ceilings() -> Iterator[Row]:
    """What this GPU can do: a copy, counting bytes read and written, and a large bf16 product of random matrices."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    yield Row("GEMM 8192, bf16", 2 * 8192**3 / timed(lambda: a @ b).median / 1e9, "TFLOP/s")
    source = torch.empty(ROWS, device="cuda", dtype=torch.uint8).random_()
    target = torch.empty_like(source)
    yield Row("copy", 2 * ROWS / timed(lambda: target.copy_(source)).median / 1e6, "GB/s", "read and written")


def ours(preset: str) -> Iterator[Row]:
    """Sampling: the plain path, the fast one."""
    model = full_model(preset)
    inputs = observation(1), flow(1)[1]
    yield milliseconds(f"{preset} ours plain, 1", timed(partial(model.sample, *inputs, STEPS), 10))
    sampler = GraphSampler(model, STEPS)
    first = seconds(partial(sampler, *inputs))
    yield Row(f"{preset} ours fast, start-up to the first answer", first, "s", "weights loaded; Triton, graph")
    for batch in (1, 2, 4, 8, 16):
        call = partial(sampler, observation(batch), flow(batch)[1])
        yield milliseconds(f"{preset} ours fast, {batch}", timed(call, 100 if batch == 1 else 30))


def theirs(mode: str) -> Iterator[Row]:
    """rlinf-openpi's sampling of pi0, eager or under a mode of `torch.compile`; `-2` at its end: two cameras only."""
    import upstream

    mode, _, views = mode.partition("-views")
    if views:
        upstream.only_views(int(views))
    model = upstream.load(False, "bfloat16", HORIZON)
    what = f"pi0 rlinf-openpi {mode}" + (f" ({views} cameras encoded)" if views else "")
    sample = model.sample_actions if mode == "eager" else torch.compile(model.sample_actions, mode=mode)
    for batch in (1, 16) if mode == "eager" else (1,):
        inputs, noise = upstream.as_upstream(observation(batch)), flow(batch)[1]
        call = partial(sample, "cuda", inputs, noise=noise, num_steps=STEPS)
        with torch.no_grad():
            if mode != "eager":
                yield Row(f"{what}, start-up to the first answer", seconds(call), "s", "weights loaded")
            yield milliseconds(f"{what}, {batch}", timed(call, 30 if batch == 1 else 10))


def floor() -> Iterator[Row]:
    """The least time for one observation: arithmetic of the prefix, then the expert's weights read in every step."""
    from training import expert_bytes, prefix_flops

    gemm, copy = (row.value for row in ceilings())
    config = full_config("pi0")
    arithmetic, reading = prefix_flops(config) / gemm / 1e9, STEPS * expert_bytes(config) / copy / 1e6
    note = f"{arithmetic:.1f} ms arithmetic at the GEMM's rate + {reading:.1f} ms reading at the copy's"
    yield Row("floor of one observation, computed", arithmetic + reading, "ms", note)


def milliseconds(what: str, timing: Timing) -> Row:
    """A row of a timing: the median, with the fastest and the slowest behind it."""
    return Row(what, timing.median, "ms", f"{timing.best:.2f} .. {timing.worst:.2f}")


def _later(module: str, function: str, *arguments: str) -> Callable[[], Iterator[Row]]:
    """A stage of another module, which only the stage's own process imports."""
    return lambda: getattr(import_module(module), function)(*arguments)


STAGES: dict[str, tuple[Callable[[], Iterator[Row]], int]] = {
    "ceilings": (ceilings, 60),
    "floor": (floor, 60),
    "parity-pi0": (_later("parity", "rows", "pi0"), 180),
    "parity-pi05": (_later("parity", "rows", "pi05"), 180),
    "ours-pi0": (lambda: ours("pi0"), 120),
    "ours-pi05": (lambda: ours("pi05"), 120),
    "theirs-eager": (lambda: theirs("eager"), 120),
    "theirs-default": (lambda: theirs("default"), 120),
    "theirs-reduce-overhead": (lambda: theirs("reduce-overhead"), 240),
    "theirs-2-cameras": (lambda: theirs("reduce-overhead-views2"), 240),
    "theirs-max-autotune": (lambda: theirs("max-autotune"), 600),
    "sft-ours": (_later("training", "ours"), 240),
    "sft-theirs": (_later("training", "theirs"), 120),
    "engine": (_later("engine", "one_gpu"), 300),
    "engine-memory": (_later("engine", "memory"), 420),
    "engine-two": (_later("engine", "several"), 480),
    "engine-on": (_later("engine", "going_on"), 580),
    "input": (_later("training", "input_pipeline"), 120),
    "bundle": (_later("bundles", "rows"), 240),
    "foreign": (_later("foreign", "rows"), 300),
    "rl-theirs": (_later("rl_theirs", "rows", "pi0"), 120),
    "rl-theirs-pi05": (_later("rl_theirs", "rows", "pi05"), 120),
    "rl-ours": (_later("rl_ours", "rows", "pi0"), 90),
    "rl-ours-pi05": (_later("rl_ours", "rows", "pi05"), 90),
    "rl-run": (_later("rl_run", "iteration", "pi0"), 180),
    "rl-run-pi05": (_later("rl_run", "iteration", "pi05"), 180),
    "rl-variants": (_later("rl_run", "variants", "pi0"), 300),
    "rl-two": (_later("rl_run", "several", "pi0"), 480),
}
"""Name -> (stage, seconds that it may take)."""
