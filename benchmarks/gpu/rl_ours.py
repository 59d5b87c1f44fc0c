"""A rollout call of this project's: sampling with exploration, log-probabilities, values, and the prefix to keep."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from measure import DEVICE, STEPS, TINY, full_model, observation, seconds, timed
from stages import Row, milliseconds

from rlinf_isaac.config import load_config
from rlinf_isaac.engines.exploration import exploration_draws
from rlinf_isaac.pi0.fast.explorer import Explored, GraphExplorer
from rlinf_isaac.pi0.flow_policy import Draws, FlowActorCritic
from rlinf_isaac.pi0.kept_prefix import KeptPrefix
from rlinf_isaac.pi0.observation import Observation

BATCHES = (2,) if TINY else (16, 64)


def rows(preset: str) -> Iterator[Row]:
    """The calls, and how far their log-probabilities are from those that plain kernels compute of the same steps."""
    config = load_config(preset)
    assert config.policy.denoise_steps == STEPS
    model = full_model(preset, "float32" if TINY else "bfloat16")
    policy = FlowActorCritic(model, config.policy, config.rl)
    explorer = GraphExplorer(policy)
    for batch in BATCHES:
        seen = observation(batch, prompt=200 if preset == "pi05" else 48)
        draws = Draws(*(drawn.to(DEVICE) for drawn in exploration_draws(policy, [(0, row) for row in range(batch)])))
        call = partial(explorer, seen, draws)
        if batch == BATCHES[0]:
            yield Row(f"{preset} RL ours, start-up to the first answer", seconds(call), "s", "Triton, graph")
        yield milliseconds(f"{preset} RL ours rollout {batch}", timed(call, 10))
        found = call()
        yield from _kept(preset, batch, found.prefix)
        yield from _ratios(preset, batch, policy, seen, found)
    if DEVICE == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        yield Row(f"{preset} RL ours rollout, peak memory", peak, "GiB", f"calls of {BATCHES}")


def _kept(preset: str, batch: int, prefix: KeptPrefix) -> Iterator[Row]:
    if batch == BATCHES[-1]:
        size = prefix.keys.numel() * prefix.keys.element_size() * 2 / batch / 2**20
        yield Row(f"{preset} RL ours, a kept prefix", size, "MiB", f"{prefix.keys.shape[3]} tokens")


def _ratios(preset: str, batch: int, policy: FlowActorCritic, seen: Observation, found: Explored) -> Iterator[Row]:
    with torch.no_grad():
        cache = found.prefix.cache(policy.model, padded=not bool(found.prefix.valid.all()))
        plain = policy.log_probabilities(seen.state, cache, found.transitions)
    ratio = (plain.log_prob - found.evaluated.log_prob).abs().double()
    value = (plain.value - found.evaluated.value).abs().max().item()
    shown = {name: ratio.quantile(share).item() for name, share in {"median": 0.5, "p99": 0.99, "max": 1.0}.items()}
    for name, each in shown.items():
        yield Row(
            f"{preset} RL ours, |log ratio| of {batch} calls, {name}", each, "error", f"values differ by {value:.1e}"
        )
