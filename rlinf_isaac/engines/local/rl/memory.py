"""How much memory an update takes, and where the prefixes of an iteration lie. This module does not import torch.

The activations that autograd saves are counted as for a fine-tuning (`sft.memory`): for a frozen VLM those of the
expert alone, and the keys and values that its layers join with those of the prefix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.engines.local.sft.memory import GIB, NOT_COMPILED, saved_by_gemma, training_memory
from rlinf_isaac.envs.lanes import lanes_of
from rlinf_isaac.ground.errors import InvalidJob

MARGIN = 0.9
"""Share of the free memory that is given away; estimates are accurate to a tenth."""
LESS_MEMORY = "a smaller rl.micro_batch or rl.num_envs, rl.prefix_memory=host, rl.trainable=expert"
"""Settings that need less memory of a device."""


def as_fine_tuning(config: JobConfig) -> JobConfig:
    """The config of a fine-tuning that trains the same parameters: what is written for the section `sft` reads it.

    A flow sample of it is a stochastic denoising step.
    """
    rl = config.rl
    chosen = replace(
        config.sft,
        trainable=rl.trainable,
        train_vision=rl.train_vision,
        lora=rl.lora,
        seed=rl.seed,
        batch_size=rl.minibatch,
        micro_batch=rl.micro_batch,
        flow_samples=stochastic_steps(config),
        ema_decay=0.0,
    )
    return replace(config, sft=chosen)


def stochastic_steps(config: JobConfig) -> int:
    """Stochastic denoising steps of a policy call (`FlowActorCritic.stochastic_steps`)."""
    count = 0 if config.rl.exploration == "flow_noise" else config.rl.noise_steps
    return count or config.policy.denoise_steps


def most_rows(config: JobConfig, processes: int) -> int:
    """The most action chunks that an iteration can have, if `processes` share its episodes."""
    chunks = math.ceil(config.env.max_episode_steps / config.policy.action_chunk)
    return processes * math.ceil(config.rl.episodes / processes) * chunks


def prefix_bytes(config: JobConfig, tokens: int) -> int:
    """Bytes of the keys and values of one prefix of `tokens` tokens."""
    vlm = config.model.vlm
    return 2 * vlm.depth * vlm.num_kv_heads * vlm.head_dim * tokens * _item(config)


def piece_bytes(config: JobConfig, tokens: int) -> int:
    """Bytes that a forward and backward pass takes for each of its rows."""
    if config.rl.trainable != "expert":
        one = as_fine_tuning(config)
        return training_memory(replace(one, sft=replace(one.sft, batch_size=1, micro_batch=1))).activations
    model, steps = config.model, stochastic_steps(config)
    suffix = model.action_horizon + (not model.pi05)
    joined = 2 * model.vlm.num_kv_heads * model.vlm.head_dim * (tokens + suffix)
    layer = suffix * saved_by_gemma(model.expert) + joined
    plain = 1 if config.compute.compile else NOT_COMPILED
    # The rows that are fetched from host memory for the next pass are there at the same time.
    return int(steps * model.expert.depth * layer * _item(config) * plain) + 2 * prefix_bytes(config, tokens)


def sampling_bytes(config: JobConfig, tokens: int) -> int:
    """Bytes that a policy call takes: one layer of the VLM, and the prefixes with a copy."""
    layer = tokens * saved_by_gemma(config.model.vlm) * _item(config)
    return config.rl.num_envs * (layer + 2 * prefix_bytes(config, tokens))


@dataclass(frozen=True)
class MemoryPlan:
    """What goes where.

    Attributes:
        rows: rows of the buffer.
        keeps_prefix: whether prefixes are kept, or images.
        near: how many prefixes are kept on the policy's device; the others are in pinned host memory.
        piece: rows of one forward and backward pass.
    """

    rows: int
    keeps_prefix: bool
    near: int
    piece: int


def plan_on_gpu(config: JobConfig, tokens: int, free: int, host: int) -> MemoryPlan:
    """Divide the memory of a GPU between prefixes and passes.

    Args:
        config: config of the job.
        tokens: P, tokens of a prefix.
        free: bytes of the GPU's memory that are free once it has the weights and their float32 copies.
        host: bytes of the machine's memory that are free.

    Raises:
        InvalidJob: there is no room for what the config demands.
    """
    rl, rows, row, piece = config.rl, most_rows(config, 1), prefix_bytes(config, tokens), piece_bytes(config, tokens)
    fixed = training_memory(as_fine_tuning(config))
    left = int(MARGIN * free) - fixed.moments - fixed.gradients - sampling_bytes(config, tokens)
    most = min(rl.minibatch, rl.micro_batch or max(1, left // (2 * piece)))
    size = math.ceil(rl.minibatch / math.ceil(rl.minibatch / most))  # equal pieces
    left -= size * piece
    if left < 0:
        cause = f"the GPU has {free / GIB:.1f} GiB left, and the update takes {(free - left) / GIB:.1f}"
        raise InvalidJob.of("rl-memory", cause, "use a smaller rl.micro_batch, rl.num_envs, or rl.trainable=expert")
    where = rl.prefix_memory
    if rl.trainable != "expert" or where == "none":
        return MemoryPlan(rows, False, 0, size)
    if where in ("auto", "gpu"):
        near = min(rows, left // row)
    else:
        near = 0 if where == "host" else min(rows, int(float(where) * GIB) // row)
    far = (rows - near) * row
    if where == "auto" and far > MARGIN * host:
        return MemoryPlan(rows, False, 0, size)
    if near * row > left or (where == "gpu" and near < rows) or far > MARGIN * host:
        cause = (
            f"the prefixes of {rows} action chunks take {rows * row / GIB:.1f} GiB; free are {left / GIB:.1f} on the "
            f"GPU and {host / GIB:.1f} beside it"
        )
        cure = f"rl.prefix_memory={where} has no room: use auto, or a smaller rl.episodes"
        raise InvalidJob.of("rl-memory", cause, cure)
    return MemoryPlan(rows, True, near, size)


def plan_on_cpu(config: JobConfig, tokens: int, host: int) -> MemoryPlan:
    """The plan of `rl.workers` processes on a CPU: prefixes are kept where half of the memory has room for them."""
    rl = config.rl
    rows, keeps = most_rows(config, rl.workers), rl.trainable == "expert" and rl.prefix_memory != "none"
    keeps = keeps and (rl.prefix_memory == "host" or 2 * rows * prefix_bytes(config, tokens) <= host)
    # Passes of the size of the rollout's policy calls have the same log-probabilities, bit by bit.
    slots = rl.num_envs // rl.workers
    return MemoryPlan(rows, keeps, rows if keeps else 0, slots // lanes_of(config, slots))


def prefix_tokens(config: JobConfig, prompt_tokens: int) -> int:
    """P, the tokens of a prefix with that many tokens of the prompt."""
    vision = config.model.vision
    return len(task_of(config).cameras) * (vision.image_size // vision.patch_size) ** 2 + prompt_tokens


def free_memory() -> int:
    """Bytes of this machine's memory that are free, as ``/proc/meminfo`` and the control group say."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and limit.read_text().strip().isdecimal():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def _item(config: JobConfig) -> int:
    return 2 if config.compute.dtype == "bfloat16" else 4
