"""Sampling as CUDA graphs."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rlinf_isaac.pi0.fast.graphs import Addresses, Graphs
from rlinf_isaac.pi0.fast.inputs import Inputs
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.observation import Observation

if TYPE_CHECKING:
    from rlinf_isaac.pi0.fast.network import FastNetwork

PROMPT_STEP = 16
"""Prompts are padded to a multiple of this many tokens, so that prompts of about the same length share a graph."""
MADE_FOR = (9, 10)
"""Major compute capabilities whose multiprocessors have the 227 KiB of shared memory that the kernels' tiles need:
Hopper and its data-centre successor. Ampere and consumer cards have less."""


class GraphSampler:
    """`Pi0.sample` on a GPU, captured as a CUDA graph once for every shape of its inputs and then replayed.

    It runs `FastNetwork` if that fits the model, and otherwise `Pi0.sample` itself. After the weights have changed in
    place, call `refresh`. Not thread-safe.

    Attributes:
        network: the model as a `FastNetwork`; None if that does not fit.
        graphs: the captured graphs.
    """

    def __init__(self, model: Pi0, num_steps: int) -> None:
        start = time.perf_counter()
        self.model, self.num_steps = model, num_steps
        self.device = model.action_in_proj.weight.device
        self.network = _network(model, num_steps)
        self.graphs = Graphs(self.device)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._addresses = Addresses(model)
        self.graphs.warmup_seconds = time.perf_counter() - start

    @property
    def warmup_seconds(self) -> float:
        """Time spent so far on joining weights, compiling kernels and capturing graphs."""
        return self.graphs.warmup_seconds

    def __call__(self, observation: Observation, noise: Tensor) -> Tensor:
        """Returns actions (B, H, A) float32 on the model's device; the arguments may be on any device."""
        inputs, padded = gather(observation, noise)

        def run(tensors: tuple[Tensor, ...]) -> Tensor:
            own = Inputs.of(tensors)
            if self.network is not None:
                return self.network(own, padded)
            return self.model.sample(own.observation(padded), own.noise, self.num_steps)

        return self.graphs(("sample", padded), inputs.tensors(), run).clone()

    def refresh(self) -> None:
        """Takes over weights that have changed in place. The captured graphs stay.

        Raises:
            RuntimeError: parameters have moved in memory.
        """
        self._addresses.check()
        if self.network is not None:
            self.network.refresh()


def gather(observation: Observation, noise: Tensor) -> tuple[Inputs, bool]:
    """The network's inputs from an observation, and whether any token of a prefix is masked.

    The prompt is padded to a multiple of `PROMPT_STEP` tokens.
    """
    cameras = observation.present_cameras or ()
    padding = -observation.prompt_tokens.shape[1] % PROMPT_STEP
    masks = [observation.image_masks[camera] for camera in cameras]
    inputs = Inputs(
        images=tuple(observation.images[camera] for camera in cameras),
        image_masks=torch.stack(masks) if masks else observation.prompt_mask.new_empty(0, len(noise)),
        prompt_tokens=F.pad(observation.prompt_tokens, (0, padding)),
        prompt_mask=F.pad(observation.prompt_mask, (0, padding), value=False),
        state=observation.state,
        noise=noise,
    )
    return inputs, bool(observation.padded) or padding > 0


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


def _network(model: Pi0, num_steps: int) -> FastNetwork | None:
    if not fits(model):
        return None
    from rlinf_isaac.pi0.fast.network import FastNetwork

    return FastNetwork(model, num_steps)
