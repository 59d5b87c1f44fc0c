"""Full fine-tuning: samples per second, the share of the GPU's arithmetic, and whether the input keeps up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from frames import frames, unit_stats
from measure import HORIZON, PROMPT, VIEWS, flow, full_config, full_model, observation, seconds, timed
from stages import Row

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import GemmaConfig, ModelConfig
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.local.sft.loading import BatchLoader
from rlinf_isaac.engines.local.training.optimiser import MasterAdamW, clip_gradients, gradient_norm
from rlinf_isaac.pi0.compiled import compile_blocks
from rlinf_isaac.pi0.policy import Processor
from rlinf_isaac.pi0.tokenizer import ByteTokenizer

SUFFIX = HORIZON + 1


def ours() -> Iterator[Row]:
    """Steps of forward, backward, clipping and AdamW; with OpenPI's bf16 optimiser state, and with float32 copies."""
    for kind, name, batches in (
        (torch.optim.AdamW, "bf16 AdamW, as rlinf-openpi", (16, 32, 48)),
        (MasterAdamW, "float32 master weights", (32,)),
    ):
        model = compile_blocks(full_model("pi0").train())
        named = list(model.named_parameters())
        exact = ({name: each.detach().float() for name, each in named},) if kind is MasterAdamW else ()
        optimiser = kind(named, *exact, lr=1e-5, fused=True)
        for batch in batches:
            inputs, data = observation(batch), flow(batch)

            def step(model=model, optimiser=optimiser, inputs=inputs, data=data) -> None:
                loss = model(inputs, *data).mean()
                loss.backward()
                if isinstance(optimiser, MasterAdamW):
                    optimiser.clipped_step(1.0, sound=loss.detach()).item()
                else:
                    clip_gradients(model.parameters(), gradient_norm(model.parameters()), 1.0)
                    optimiser.step()
                optimiser.zero_grad(set_to_none=True)

            yield from _rate(f"pi0 SFT ours, {name}", batch, step)
        del model, optimiser, step
        torch.cuda.empty_cache()


def theirs() -> Iterator[Row]:
    """rlinf-openpi's step as its users run it: eager, fused AdamW on bfloat16 parameters."""
    import upstream

    for views in (3, 2):
        upstream.only_views(views)
        model = upstream.load(False, "bfloat16", HORIZON).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        inputs, actions = upstream.as_upstream(observation(32)), flow(32)[0]

        def step(model=model, optimiser=optimiser, inputs=inputs, actions=actions) -> None:
            model(inputs, actions).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        name = "as shipped: 3 cameras encoded" if views == 3 else "2 cameras encoded"
        yield from _rate(f"pi0 SFT rlinf-openpi, {name}", 32, step)
        del model, optimiser, step
        torch.cuda.empty_cache()


def _rate(what: str, batch: int, step: Callable[[], None]) -> Iterator[Row]:
    torch.cuda.reset_peak_memory_stats()
    first = seconds(step)
    timing = timed(step, 8, 2)
    memory = torch.cuda.max_memory_allocated() / 2**30
    rate = batch / timing.median * 1e3
    tera = rate * 3 * forward_flops(full_config("pi0")) / 1e12
    note = f"{timing.median:.0f} ms ({timing.best:.0f} .. {timing.worst:.0f}), {tera:.0f} TFLOP/s counted,"
    yield Row(f"{what}, batch {batch}", rate, "samples/s", f"{note} {memory:.0f} GiB, first step {first:.0f} s")


def prefix_flops(config: ModelConfig) -> float:
    """Multiplications and additions of images and prompt of one observation, one forward pass.

    Without what nobody reads: the output of the VLM's last layer. Two views, 48 prompt tokens.
    """
    vision, vlm = config.vision, config.vlm
    patches = (vision.image_size // vision.patch_size) ** 2
    layer = 4 * vision.width**2 + 2 * vision.width * vision.mlp_dim
    image = patches * (vision.depth * layer + 3 * vision.patch_size**2 * vision.width + vision.width * vlm.width)
    image += vision.depth * 2 * patches**2 * vision.width
    tokens = VIEWS * patches + PROMPT
    last = 2 * vlm.width * vlm.num_kv_heads * vlm.head_dim
    text = tokens * ((vlm.depth - 1) * _layer(vlm) + last)
    text += (vlm.depth - 1) * 2 * tokens**2 * vlm.num_heads * vlm.head_dim
    return 2.0 * (VIEWS * image + text)


def suffix_flops(config: ModelConfig) -> float:
    """The same for one pass of the expert over state and actions."""
    expert = config.expert
    context = VIEWS * (config.vision.image_size // config.vision.patch_size) ** 2 + PROMPT + SUFFIX
    attention = 2 * SUFFIX * context * expert.num_heads * expert.head_dim
    return 2.0 * expert.depth * (SUFFIX * _layer(expert) + attention)


def forward_flops(config: ModelConfig) -> float:
    """One sample of training, forward. The backward pass is counted as twice that; nothing else is counted."""
    return prefix_flops(config) + suffix_flops(config)


def expert_bytes(config: ModelConfig) -> float:
    """Bytes of the expert's weights in bfloat16, norms aside."""
    return 2.0 * config.expert.depth * _layer(config.expert)


def _layer(gemma: GemmaConfig) -> int:
    heads = 2 * gemma.num_heads + 2 * gemma.num_kv_heads
    return gemma.width * (heads * gemma.head_dim + 3 * gemma.mlp_dim)


def input_pipeline() -> Iterator[Row]:
    """Decoding, resizing and tokenising, in the one thread that does so while the GPU trains, or in processes."""
    warm, steps = 16, 48  # the first ones wait for the processes to start, or were ready when those had
    config = load_config("pi0", ["policy.tokenizer=byte", "model.max_token_len=64", f"sft.steps={steps}"])
    with frames(config) as directory:
        dataset = LeRobotDataset(directory / "data", image_cache_bytes=1)  # no image comes from memory
        processor = Processor(config.model, config.policy, from_json(unit_stats(config)), ByteTokenizer())
        for workers in (0, 4, 8):
            config.sft.loader_workers = workers
            with BatchLoader(config, dataset, processor, 0, slice(None)) as loader:
                for step in range(warm):
                    loader.get(step)
                start = time.perf_counter()
                for step in range(warm, steps):
                    loader.get(step)
                rate = (steps - warm) * config.sft.batch_size / (time.perf_counter() - start)
            where = f"{workers} processes" if workers else "one thread, beside the training"
            yield Row("input pipeline, 2 PNG of 256 px per sample", rate, "samples/s", where)
