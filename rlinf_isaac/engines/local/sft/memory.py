"""Estimates the GPU memory of a fine-tuning from its config, without importing torch.

The memory of weights, gradients and optimiser state follows from the names and shapes of the parameters. The memory of
the activations that autograd saves is counted in numbers per token and layer, for compiled layers: a Gemma layer saves
six times its width, the queries, keys, values and attention outputs, and three times its feed-forward width; a vision
layer saves eight times its width and twice its feed-forward width. Attention scores are not saved.

Comparison with `torch.cuda.max_memory_allocated` on one H200, for the full-size pi0 with two views and compiled layers;
all parameters trained, 48 prompt tokens, horizon 50:

    batch 32, bfloat16 alone           70 GiB measured, 73 computed
    batch 48, bfloat16 alone           96 GiB           100
    batch 32, float32 copies           93 GiB           98
    batch 48, float32 copies          118 GiB           125
    batch 8, adapters, float32 copies  21.7 GiB          21.8
    two processes, batch 64, shards    80 GiB            82
    two processes, batch 64, copies   107 GiB           104

Batch 32 with float32 copies, four flow samples, 96 prompt tokens, horizon 16:

    everything                        100 GiB measured, 102 computed
    the expert                         14 GiB           16

So the estimate is accurate to about a tenth. Batch 32 with activation checkpointing took 50.7 GiB, 50.2 computed.
Layers that are not compiled save about 1.5 times as much (an earlier model of the same shapes took 98 GiB at batch 32
in bfloat16 alone; 100 computed). The CUDA context of some 0.5 GiB and the allocator's reserve are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, cast

from rlinf_isaac.config.schema import GemmaConfig, JobConfig, VisionConfig
from rlinf_isaac.config.suite import tasks_of
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.pi0.layout import KEPT_IN_FLOAT32, TIED, UNREAD, state_dict_shapes
from rlinf_isaac.pi0.trainable import EXPERT, VISION, VLM, adapted_layers, is_trained

NOT_COMPILED = 1.5
GIB = 1 << 30


@dataclass(frozen=True)
class Memory:
    """Memory in bytes on each device.

    Attributes:
        weights: parameters, including adapters.
        copies: float32 copies of trained bfloat16 parameters.
        moments: moments of AdamW.
        average: moving average of the weights (``sft.ema_decay``).
        gradients: gradients of all trained parameters.
        activations: activations that autograd saves for one micro-batch.
        accumulates: whether gradients (of earlier micro-batches, or of the previous step) exist at the same time as the
            activations.
    """

    weights: int
    copies: int
    moments: int
    average: int
    gradients: int
    activations: int
    accumulates: bool

    @property
    def peak(self) -> int:
        """Peak memory, at the end of a forward pass or in the optimiser's step."""
        kept = self.weights + self.copies + self.moments + self.average
        during = self.activations + (self.gradients if self.accumulates else 0)
        return kept + max(during, self.gradients)


def training_memory(config: JobConfig) -> Memory:
    """Estimate of the memory that `sft` with this config takes on each device."""
    sft, compute = config.sft, config.compute
    rows = sft.batch_size // compute.num_processes
    micro = min(sft.micro_batch or rows, rows)
    weights, trained, rounded, moments = 0, 0, 0, 0
    for name, count, size in _parameters(config):
        weights += count * size
        if _trains(name, config):
            trained += count
            rounded += count if size == 2 else 0
            # A parameter that the model does not use has no gradient, hence no moments.
            moments += 0 if name in UNREAD else 2 * count * (4 if size == 4 or compute.master_weights else 2)
    place = launch()
    shards = 1 if compute.sharding == "replicate" else place.local_size if place else compute.num_processes
    return Memory(
        weights=weights // shards + (_gathered(config, weights) if shards > 1 else 0),
        copies=4 * rounded // shards if compute.master_weights else 0,
        moments=moments // shards,
        average=4 * trained // shards if sft.ema_decay else 0,
        gradients=(4 * trained - 2 * rounded) // shards,
        activations=micro * _kept_of_a_sample(config),
        # With replicated models the gradients stay in the buckets of the all-reduce (`spread.Spread`).
        accumulates=micro < rows or (compute.num_processes > 1 and shards == 1),
    )


def parameter_counts(config: JobConfig) -> tuple[int, int]:
    """Number of parameters of the model, with its adapters; and how many of them `sft` trains."""
    counts = [(count, _trains(name, config)) for name, count, _ in _parameters(config)]
    return sum(count for count, _ in counts), sum(count for count, trains in counts if trains)


def choose_sharding(config: JobConfig, available: int | None) -> Literal["replicate", "shard"]:
    """Whether several processes replicate or shard the model: as configured, or chosen automatically for ``auto``.

    ``auto`` replicates if the estimate leaves a tenth of the device's memory free, which is its accuracy. `available`
    is the memory of a device in bytes; None, as on a CPU, counts as enough.
    """
    if config.compute.num_processes == 1:
        return "replicate"
    sharding = config.compute.sharding
    if sharding in ("replicate", "shard"):
        return cast(Literal["replicate", "shard"], sharding)
    copies = replace(config, compute=replace(config.compute, sharding="replicate"))
    fits = available is None or training_memory(copies).peak <= 0.9 * available
    return "replicate" if fits else "shard"


def remedies(config: JobConfig) -> list[tuple[str, int]]:
    """Overrides that reduce the memory: each one alone, then all together; each with its peak in bytes."""
    sft, found = config.sft, []
    rows = sft.batch_size // config.compute.num_processes
    changes: dict[str, int | bool | str] = {}
    if (half := min(sft.micro_batch or rows, rows) // 2) > 0:
        changes["micro_batch"] = half
    if not sft.activation_checkpointing:
        changes["activation_checkpointing"] = True
    if sft.trainable == "all":
        changes["trainable"] = "lora"
    sets = [{name: value} for name, value in changes.items()]
    for chosen in [*sets, changes] if len(changes) > 1 else sets:
        words = ",".join(f"sft.{name}={str(value).lower()}" for name, value in chosen.items())
        found.append((words, training_memory(replace(config, sft=replace(sft, **chosen))).peak))  # type: ignore[arg-type]
    return found


def advice(config: JobConfig) -> str:
    """The `remedies` as text: ``sft.micro_batch=16 (about 71 GiB), ...``."""
    return ", ".join(f"{words} (about {peak / GIB:.1f} GiB)" for words, peak in remedies(config))


def _parameters(config: JobConfig) -> Iterator[tuple[str, int, int]]:
    """Name, number of elements, and bytes per element of every parameter; names of adapters end in ``.lora``."""
    tied = {second for _, second in TIED}
    for name, shape in state_dict_shapes(config.model).items():
        if name not in tied:
            cast = name.startswith((VLM, EXPERT)) and not any(part in name for part in KEPT_IN_FLOAT32)
            yield name, math.prod(shape), 2 if cast and config.compute.dtype == "bfloat16" else 4
    if config.sft.trainable == "lora":
        shapes = state_dict_shapes(config.model)
        for layer, rank, _ in adapted_layers(config):
            yield f"{layer}.lora", rank * sum(shapes[f"{layer}.weight"]), 4


def _trains(name: str, config: JobConfig) -> bool:
    return name.endswith(".lora") or is_trained(name, config.sft)


def _gathered(config: JobConfig, weights: int) -> int:
    """Bytes of the parameters that are unsharded when the backward pass begins: all that the model uses (`spread`)."""
    return weights - sum(count * size for name, count, size in _parameters(config) if name in UNREAD)


def _kept_of_a_sample(config: JobConfig) -> int:
    """Bytes that autograd saves for one sample, with all its flow samples."""
    model, sft, compute = config.model, config.sft, config.compute
    views = len({slot for task in tasks_of(config) for slot in task.cameras})
    patches = views * (model.vision.image_size // model.vision.patch_size) ** 2
    prefix, suffix = patches + model.max_token_len, sft.flow_samples * (model.action_horizon + (not model.pi05))
    vision = is_trained(VISION, sft)
    compiled = compute.compile and compute.device.startswith("cuda")
    again = int(compiled and sft.trainable == "lora")  # `compiled.recompute_products`
    stacks = [
        (patches, model.vision.depth, model.vision.width, _of_vision(model.vision, again), vision),
        (prefix, model.vlm.depth - 1, model.vlm.width, saved_by_gemma(model.vlm, again), sft.trainable != "expert"),
        (suffix, model.expert.depth, model.expert.width, saved_by_gemma(model.expert, again), True),
    ]
    numbers = 0
    for tokens, depth, width, inside, has_gradients in stacks:
        if has_gradients:
            numbers += tokens * depth * (width if sft.activation_checkpointing else inside)
    # In addition, all activations of one layer exist at a time.
    if sft.activation_checkpointing or sft.trainable == "expert":
        numbers += max(tokens * inside for tokens, _, _, inside, _ in stacks)
    numbers += _keys_and_values(config, prefix, suffix)
    images = views * 3 * 4 * model.vision.image_size**2
    return int(numbers * (2 if compute.dtype == "bfloat16" else 4) * (1 if compiled else NOT_COMPILED)) + images


def _keys_and_values(config: JobConfig, prefix: int, suffix: int) -> int:
    """Numbers in the keys and values of all layers: of the prefix, and of prefix and suffix joined per flow sample."""
    model = config.model
    joined = config.sft.flow_samples * prefix + suffix
    return 2 * model.vlm.depth * model.vlm.num_kv_heads * model.vlm.head_dim * (prefix + joined)


def saved_by_gemma(config: GemmaConfig, again: int = 0) -> int:
    """Numbers that autograd saves for a token in one layer; with `again` 1 under `compiled.recompute_products`."""
    heads = 2 * config.num_heads + 2 * config.num_kv_heads
    return 6 * config.width + heads * config.head_dim + (3 - again) * config.mlp_dim


def _of_vision(config: VisionConfig, again: int) -> int:
    return 8 * config.width + (2 - again) * config.mlp_dim
