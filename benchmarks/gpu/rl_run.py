"""Reinforcement learning by the whole engine, in an environment that costs nothing (`still`): time and memory."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from measure import DEVICE, SMALL, TINY, full_model
from stages import Row
from still import nothing_to_simulate

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.description import foreign_config
from rlinf_isaac.checkpoint.write_bundle import write_bundle
from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.training.processes import train_in_processes
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.events import Event, Metrics

GIB = 2**30
INSTRUCTION = "stack the red block on the blue one in one row"
"""48 tokens of the tokenizer that needs no file."""
CHUNK, ENVS, STEPS, EPOCHS = (10, 2, 20, 2) if TINY else (10, 64, 450, 3)
CALLS = STEPS // CHUNK
WHOLE = (
    *(f"compute.device={DEVICE}", "env.image_size=224", "model.action_horizon=50", "policy.tokenizer=byte"),
    *(f"policy.action_chunk={CHUNK}", f"rl.episodes={ENVS}", f"rl.num_envs={ENVS}", f"env.max_episode_steps={STEPS}"),
    *(f"rl.epochs={EPOCHS}", "rl.workers=1", "rl.eval_interval=0", "rl.save_interval=1000", "rl.iterations=1000"),
    *("rl.lr_warmup=0", "rl.warmup_iterations=0", "rl.target_kl=0", f"rl.minibatch={2 if TINY else 256}"),
    *([*SMALL, "compute.dtype=float32"] if TINY else []),
)


def iteration(preset: str) -> Iterator[Row]:
    """One iteration as `rl` runs it: 64 environments, 45 calls each, 3 epochs of minibatches of 256."""
    with _start(preset) as bundle:
        yield from _measured(bundle, preset, "whole iteration", ("rl.prefix_memory=gpu",))


def variants(preset: str) -> Iterator[Row]:
    """Shorter iterations: prefixes in host memory, minibatches of other sizes, and what else may train."""
    short, shorter = (f"env.max_episode_steps={10 * calls}" for calls in ((2, 2) if TINY else (10, 2)))
    size = 2 if TINY else 32
    with _start(preset) as bundle:
        for what, chosen in {
            "prefixes in host memory": (short, "rl.prefix_memory=host"),
            "minibatch 128": (short, "rl.prefix_memory=gpu", "rl.minibatch=128"),
            "minibatch 32": (short, "rl.prefix_memory=gpu", "rl.minibatch=32"),
            "LoRA": (shorter, "rl.trainable=lora", "rl.epochs=1", f"rl.minibatch={size}"),
            "all": (shorter, "rl.trainable=all", "rl.epochs=1", f"rl.minibatch={size}"),
        }.items():
            if not (TINY and "host" in what):
                yield from _measured(bundle, preset, what, chosen)


def several(preset: str) -> Iterator[Row]:
    """A whole iteration: on one GPU; on two with as much for each; on two that share what one had."""
    with _start(preset) as bundle:
        one = _second_of(bundle, preset, 1, 1)
        yield _compared(f"{preset} RL, one GPU", one, one)
        for what, times in {"as much for each": 2, "what one has for both": 1}.items():
            yield _compared(f"{preset} RL, two GPUs, {what}", _second_of(bundle, preset, 2, times), one)


def _measured(bundle: Bundle, preset: str, what: str, chosen: tuple[str, ...]) -> Iterator[Row]:
    config = _config(preset, chosen)
    with tempfile.TemporaryDirectory() as output:
        found = _second(RlJob(config, bundle, Path(output)))
    name = f"{preset} RL ours, {what}"
    update, rollout = (found[f"time/{part}_s"] for part in ("update", "rollout"))
    scoring = found.get("time/scoring_s", 0.0)
    samples = found["rollout/chunks"] * found["train/epochs"]
    calls = found["rollout/chunks"] / config.rl.num_envs
    policy = 100 * found["time/policy_share_of_rollout"]
    note = f"rollout {rollout:.2f} s ({calls:.0f} chunks each, {policy:.0f} % in the policy), scoring {scoring:.2f} s"
    note += f", update {update:.2f} s"
    yield Row(name, rollout + scoring + update, "s", f"{note} ({samples:.0f} samples)")
    yield Row(f"{name}, update per sample", update / samples * 1e3, "ms", f"minibatch {config.rl.minibatch}")
    if DEVICE == "cuda":
        yield Row(f"{name}, peak memory", torch.cuda.max_memory_allocated() / GIB, "GiB", "of tensors on the GPU")
    for key in sorted(found):
        if "log_ratio" in key or "ratio_error" in key:
            yield Row(f"{name}, {key}", found[key], "error")


def _second(job: RlJob) -> Mapping[str, float]:
    """The metrics of the second iteration: the first one is short and compiles kernels (`StillEnv`)."""
    from rlinf_isaac.engines.local import LocalEngine

    gc.collect()
    torch._dynamo.reset()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = LocalEngine().rl(job)
    found = next(event.values for event in run if isinstance(event, Metrics) and event.step == 2)
    run.close()  # type: ignore[attr-defined]
    return found


@contextmanager
def _start(preset: str) -> Iterator[Bundle]:
    """A bundle with random weights; while it exists, jobs play in the environment that costs nothing."""
    config = _config(preset, ())
    dims = {"state": 16, "actions": 7}
    stats = {
        name: {"mean": [0.0] * dim, "std": [1.0] * dim, "q01": [-1.0] * dim, "q99": [1.0] * dim}
        for name, dim in dims.items()
    }
    norm_stats = json.dumps({"norm_stats": stats}).encode()
    model = full_model(preset)
    with nothing_to_simulate(), tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bundle"
        write_bundle(
            path,
            state_dict=model.state_dict(),
            config=foreign_config(config),
            norm_stats=norm_stats,
            asset_id="stack_cube",
            step=1,
            lineage={"config": None, "dataset": None, "norm_stats": bytes_digest(norm_stats), "parent": None},
        )
        del model
        yield read_bundle(path, verify=False)


def _config(preset: str, chosen: tuple[str, ...]) -> JobConfig:
    prompt = [] if TINY else [f"model.max_token_len={200 if preset == 'pi05' else 48}"]
    config = load_config(preset, [*WHOLE, *prompt, *chosen])
    return replace(config, task=replace(task_of(config), prompts=(INSTRUCTION,)).as_dict())


def _compared(what: str, found: Mapping[str, float], one: Mapping[str, float]) -> Row:
    names = ("rollout", "scoring", "update")
    parts = {name: found.get(f"time/{name}_s", 0.0) for name in names}
    seconds, alone = sum(parts.values()), sum(one.get(f"time/{name}_s", 0.0) for name in names)
    gain = (found["rollout/chunks"] / seconds) / (one["rollout/chunks"] / alone)
    note = ", ".join(f"{name} {value:.2f} s" for name, value in parts.items())
    waited = found.get("time/wait_for_processes_s", 0.0)
    return Row(what, seconds, "s", f"{note}, waited {waited:.2f} s, {gain:.2f} x the chunks/s of one")


def _second_of(bundle: Bundle, preset: str, processes: int, times: int) -> Mapping[str, float]:
    """The metrics of the second iteration, in processes of their own in any case: the first one compiles kernels."""
    config = _config(preset, ("rl.prefix_memory=gpu",))
    sizes = {name: times * getattr(config.rl, name) for name in ("num_envs", "episodes", "minibatch")}
    rl = replace(config.rl, **sizes)
    config = replace(config, rl=rl, compute=replace(config.compute, num_processes=processes))
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()  # of the model that the bundle was written from
    with tempfile.TemporaryDirectory() as output:
        run = train_in_processes(RlJob(config, bundle, Path(output)), _train)
        found = next(event.values for event in run if isinstance(event, Metrics) and event.step == 2)
        run.close()  # type: ignore[attr-defined]
    return found


def _train(job: RlJob, team: Team) -> Iterator[Event]:
    with nothing_to_simulate():
        from rlinf_isaac.engines.local.rl.train import train_as

        yield from train_as(job, team)
