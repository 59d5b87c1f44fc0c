"""Sampling as CUDA graphs: one launch per action chunk, with no Python or host work between the kernels."""

from __future__ import annotations

import importlib.util
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlinf_isaac.pi0.fast.inputs import Inputs
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.observation import Observation

KEPT_GRAPHS = 8
PROMPT_STEP = 16
"""Prompts are padded to a multiple of this many tokens, so that prompts of about the same length share a graph."""
MADE_FOR = (9, 10)
"""Major compute capabilities whose multiprocessors have the 227 KiB of shared memory that the kernels' tiles need:
Hopper and its data-centre successor. Ampere and consumer cards have less."""


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    actions: Tensor


class GraphSampler:
    """`Pi0.sample` on a GPU, captured as a CUDA graph once for every shape of its inputs and then replayed.

    It runs `FastNetwork` if that fits the model, and otherwise `Pi0.sample` itself. The weights are read by `__init__`;
    after they change, make a new sampler. Not thread-safe.

    Attributes:
        warmup_seconds: time spent so far on compiling kernels and capturing graphs.
    """

    def __init__(self, model: Pi0, num_steps: int) -> None:
        start = time.perf_counter()
        self.device = model.action_in_proj.weight.device
        self.run = _network(model, num_steps)
        self.graphs: OrderedDict[tuple, _Captured] = OrderedDict()
        self.pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize(self.device)
        self.warmup_seconds = time.perf_counter() - start

    def __call__(self, observation: Observation, noise: Tensor) -> Tensor:
        """Returns actions (B, H, A) float32 on the model's device; the arguments may be on any device."""
        inputs = gather(observation, noise)
        padded = bool(observation.padded) or inputs.prompt_mask.shape[1] > observation.prompt_mask.shape[1]
        key = (padded, inputs.images.dtype, *(tuple(tensor.shape) for tensor in inputs))
        with torch.cuda.device(self.device):
            captured = self.graphs.pop(key, None) or self._capture(inputs, padded)
            self.graphs[key] = captured
            if len(self.graphs) > KEPT_GRAPHS:
                self.graphs.popitem(last=False)
            for graph_input, value in zip(captured.inputs, inputs, strict=True):
                graph_input.copy_(value, non_blocking=True)
            captured.graph.replay()
            return captured.actions.clone()

    def _capture(self, inputs: Inputs, padded: bool) -> _Captured:
        start = time.perf_counter()
        inputs = Inputs(*(tensor.to(self.device, copy=True) for tensor in inputs))
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles the kernels, and lets libraries allocate their workspaces
                self.run(inputs, padded)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # All graphs share one memory pool: they never run at the same time, and their results are copied.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            actions = self.run(inputs, padded)
        self.warmup_seconds += time.perf_counter() - start
        return _Captured(graph, inputs, actions)


def gather(observation: Observation, noise: Tensor) -> Inputs:
    """The network's inputs from an observation, with the prompt padded to a multiple of `PROMPT_STEP` tokens."""
    cameras = observation.present_cameras or ()
    padding = -observation.prompt_tokens.shape[1] % PROMPT_STEP
    empty = noise.new_empty(0)
    return Inputs(
        images=torch.cat([observation.images[camera] for camera in cameras]) if cameras else empty,
        image_masks=torch.stack([observation.image_masks[camera] for camera in cameras])
        if cameras
        else observation.prompt_mask.new_empty(0, len(noise)),
        prompt_tokens=F.pad(observation.prompt_tokens, (0, padding)),
        prompt_mask=F.pad(observation.prompt_mask, (0, padding), value=False),
        state=observation.state,
        noise=noise,
    )


def fits(model: Pi0) -> bool:
    """Whether `FastNetwork` can run a model: bfloat16, sizes that its tiles divide, a suitable GPU, and Triton."""
    config, weight = model.config, model.vlm.language_model.embed_tokens.weight
    sizes = [config.expert.width, config.expert.mlp_dim, config.expert.num_heads * config.expert.head_dim]
    return (
        importlib.util.find_spec("triton") is not None
        and weight.dtype == torch.bfloat16
        and (not weight.is_cuda or torch.cuda.get_device_capability(weight.device)[0] in MADE_FOR)
        and config.expert.head_dim in (32, 64, 128, 256)
        and all(size % 32 == 0 for size in sizes)
    )


def _network(model: Pi0, num_steps: int) -> Callable[[Inputs, bool], Tensor]:
    if fits(model):
        from rlinf_isaac.pi0.fast.network import FastNetwork

        return FastNetwork(model, num_steps)

    def plain(inputs: Inputs, padded: bool) -> Tensor:
        return model.sample(inputs.observation(padded), inputs.noise, num_steps)

    return plain
