"""Fine-tuning of the full-size pi0 by the whole engine: samples per second, memory, several GPUs, going on with others.

Everything is what `sft` does: a dataset of PNG frames, its loaders, the losses and metrics; but no checkpoint is
written unless the row is about going on. The weights are random, and two GPUs begin with the ones that one begins with.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

import torch
from frames import frames, unit_stats
from measure import HORIZON
from stages import Row, ceilings
from training import forward_flops

from rlinf_isaac.config import load_config
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.sft.memory import GIB, training_memory
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.events import CheckpointSaved, Event, Metrics

WARM = 8
"""Steps of a run that are not timed: kernels are compiled, loaders start."""
COMMON = (
    *("policy.tokenizer=byte", "model.max_token_len=48", f"model.action_horizon={HORIZON}", "sft.log_interval=1"),
    *("sft.steps=100000", "sft.save_interval=100000", "sft.warmup_steps=10", "sft.lr=1e-5", "sft.loader_workers=6"),
)

SPARSE = "sft.log_interval=4"
"""Where speed is measured: a step whose metrics are logged waits for its loss, and nobody logs every step."""


def one_gpu() -> Iterator[Row]:
    """The speed of one GPU, beside a large product of matrices in the same process."""
    (gemm, _) = ceilings()
    yield gemm
    with frames(load_config("pi0", COMMON)) as data:
        for batch, steps in ((32, 48), (48, 32)):
            yield _speed(_job(data, f"sft.batch_size={batch}", SPARSE), steps, gemm.value)


def memory() -> Iterator[Row]:
    """Peaks of what trains less, or in smaller parts, beside the estimates that the preflight gives."""
    with frames(load_config("pi0", COMMON)) as data:
        for chosen in (
            ("sft.trainable=lora", "sft.batch_size=8"),
            ("sft.trainable=lora", "sft.batch_size=8", "sft.train_vision=false"),
            ("sft.trainable=lora", "sft.batch_size=8", "sft.micro_batch=4"),
            ("sft.batch_size=32", "sft.micro_batch=8"),
            ("sft.batch_size=32", "sft.activation_checkpointing=true"),
        ):
            yield _speed(_job(data, *chosen), WARM + 8)


def several() -> Iterator[Row]:
    """Two GPUs against one: at the same batch for each, and of one batch, whose losses are to be the same."""
    with frames(load_config("pi0", COMMON)) as data:
        timed = _run(_job(data, "sft.batch_size=32", SPARSE), 40)
        rate = _rate(timed, 32)
        yield Row("SFT, one GPU, batch 32", rate, "samples/s", _peak(timed))
        alone = _job(data, "sft.batch_size=32")
        one = _run(alone, 20)
        for sharding in ("replicate", "shard"):
            both = replace(_job(data, "sft.batch_size=64", SPARSE), processes=2, sharding=sharding)
            found = _run(replace(both, output=data / sharding), 48)
            note = f"{_rate(found, 64) / rate:.3f} x one GPU, {_peak(found)}"
            yield Row(f"SFT, two GPUs, {sharding}, batch 32 each", _rate(found, 64), "samples/s", note)
            shared = _run(replace(alone, processes=2, sharding=sharding, output=data / f"shared-{sharding}"), 20)
            yield _difference(f"the same batch of 32 on two, {sharding}", shared, one)


def going_on() -> Iterator[Row]:
    """Interrupted after step 2 on one GPU and after step 4 on two: against losses of one that nothing interrupts."""
    with frames(load_config("pi0", COMMON)) as data:
        whole = _run(_job(data, "sft.batch_size=32"), 6)
        job = _job(data, "sft.batch_size=32", "sft.save_interval=2")
        entries: dict[int, dict[str, float]] = {}
        for processes, until in ((1, 2), (2, 4), (1, 6)):
            begun = time.perf_counter()
            run = LocalEngine().sft(replace(job, processes=processes, sharding="replicate"))
            for event in run:
                if isinstance(event, Metrics):
                    entries[event.step] = dict(event.values)
                if isinstance(event, CheckpointSaved) and event.step == until:
                    break
                if until == 6 and len(entries) == 6:
                    break
            run.close()
            _free()
            print(f"{processes} to step {until}: {time.perf_counter() - begun:.0f} s", flush=True)
        yield _difference("1 -> 2 -> 1 GPUs, interrupted after steps 2 and 4", entries, whole)


def _speed(job: SftJob, steps: int, ceiling: float = 0.0) -> Row:
    config = job.config
    batch = config.sft.batch_size
    found = _run(job, steps)
    rate = _rate(found, batch)
    note = f"{batch / rate * 1e3:.0f} ms a step, {_peak(found)}, {training_memory(config).peak / GIB:.0f} estimated"
    if ceiling:
        tera = rate * 3 * forward_flops(config.model) / 1e12
        note += f", {tera:.0f} TFLOP/s counted, {100 * tera / ceiling:.1f} % of the GEMM"
    waited = fmean(each["time/data_wait"] for step, each in found.items() if step > WARM)
    what = "micro_batch=", "trainable=", "train_vision=", "checkpointing="
    chosen = [word.removeprefix("sft.") for word in job.output.name.split(",") if any(part in word for part in what)]
    name = ", ".join(["SFT by the engine", f"batch {batch}", *chosen])
    return Row(name, rate, "samples/s", f"{note}, waited {waited * 1e3:.1f} ms a step for data")


def _run(job: SftJob, steps: int) -> dict[int, dict[str, float]]:
    """The metrics of the first steps, by step."""
    found: dict[int, dict[str, float]] = {}
    run: Iterator[Event] = LocalEngine().sft(job)
    for event in run:
        if isinstance(event, Metrics):
            found[event.step] = dict(event.values)
        if found and max(found) >= steps:
            break
    run.close()  # type: ignore[attr-defined]
    _free()
    return found


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch._dynamo.reset()


def _rate(found: dict[int, dict[str, float]], batch: int) -> float:
    """Samples per second of the median step."""
    return batch * median(each["time/steps_per_second"] for step, each in found.items() if step > WARM)


def _peak(found: dict[int, dict[str, float]]) -> str:
    return f"{max(each['gpu/peak_memory_gib'] for each in found.values()):.1f} GiB"


def _difference(what: str, found: dict[int, dict[str, float]], wanted: dict[int, dict[str, float]]) -> Row:
    losses = [(each["train/loss"], wanted[step]["train/loss"]) for step, each in found.items()]
    most = max(abs(ours - theirs) / theirs for ours, theirs in losses)
    return Row(what, most, "error", f"largest of the losses of {len(losses)} steps, relative")


def _job(data: Path, *chosen: str) -> SftJob:
    config = load_config("pi0", [*COMMON, *chosen])
    return SftJob(config, data / "data", bytes_digest(b"noise"), unit_stats(config), data / ",".join(chosen))
