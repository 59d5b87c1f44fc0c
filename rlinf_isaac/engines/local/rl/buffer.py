"""The rollout buffer: what the policy calls of an iteration leave for its update, one row per action chunk.

A row is written when the policy is called, and only for the slots in which an episode is running. It has either the
prefix of the observation or, where the prefix changes with the weights that train or has no room, the images at the
model's size and the tokens of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.exploration import Explored
from rlinf_isaac.engines.local.rl.memory import prefix_tokens
from rlinf_isaac.engines.local.rl.prefixes import PrefixStore, on_device, row_shape
from rlinf_isaac.engines.local.rl.shared import Layout
from rlinf_isaac.pi0.flow_policy import Evaluated, FlowActorCritic, Transitions
from rlinf_isaac.pi0.kept_prefix import KeptPrefix
from rlinf_isaac.pi0.observation import Observation, to_device


@dataclass(frozen=True)
class BufferShape:
    """Sizes of a rollout buffer.

    Attributes:
        config: config of the job.
        rows: R, number of rows.
        steps: S, stochastic steps of a policy call.
        cameras: the model's cameras that the task has, in the model's order.
        prompt_tokens: most tokens of a prompt.
        keeps_prefix: whether rows have prefixes or images.
    """

    config: JobConfig
    rows: int
    steps: int
    cameras: tuple[str, ...]
    prompt_tokens: int
    keeps_prefix: bool

    @property
    def prefix_tokens(self) -> int:
        """P, most tokens of a prefix: those of the images and of the prompt."""
        return prefix_tokens(self.config, self.prompt_tokens)

    @property
    def prefix_dtype(self) -> torch.dtype:
        """Format of keys and values."""
        return torch.bfloat16 if self.config.compute.dtype == "bfloat16" else torch.float32

    def numbers(self) -> Layout:
        """What every row has, whatever else it keeps."""
        model, rows = self.config.model, self.rows
        flow = (rows, self.steps, model.action_horizon, model.action_dim)
        return {
            "state": ((rows, model.action_dim), torch.float32),
            "before": (flow, torch.float32),
            "after": (flow, torch.float32),
            "steps": ((rows, self.steps), torch.int64),
            "log_prob": ((rows,), torch.float32),
            "value": ((rows,), torch.float32),
        }

    def prefixes(self, near: int) -> Layout:
        """The prefixes; keys and values of only the first `near` rows."""
        if not self.keeps_prefix:
            return {}
        model, tokens = self.config.model, self.prefix_tokens
        mean = {"mean_token": ((self.rows, model.vlm.width), self.prefix_dtype)} if model.pi05 else {}
        return {
            "prefix": ((near, *row_shape(model, tokens)), self.prefix_dtype),
            "valid": ((self.rows, tokens), torch.bool),
            **mean,
        }

    def images(self) -> Layout:
        """The images and prompts."""
        if self.keeps_prefix:
            return {}
        size = self.config.model.vision.image_size
        return {
            **{f"image.{camera}": ((self.rows, 3, size, size), torch.uint8) for camera in self.cameras},
            "prompt_tokens": ((self.rows, self.prompt_tokens), torch.int64),
            "prompt_mask": ((self.rows, self.prompt_tokens), torch.bool),
        }


class Batch(NamedTuple):
    """Rows on the policy's device, of which one of `prefix` and `observation` is there; `padded` as in Observation."""

    state: Tensor
    transitions: Transitions
    prefix: KeptPrefix | None
    observation: Observation | None
    padded: bool

    def score(self, policy: FlowActorCritic) -> Evaluated:
        """Log-probabilities and values of the recorded denoising steps under the present weights; with gradients."""
        if self.prefix is not None:
            cache = self.prefix.cache(policy.model, padded=self.padded)
        else:
            assert self.observation is not None
            cache = policy.training_prefix(self.observation)
        return policy.log_probabilities(self.state, cache, self.transitions)


class RolloutBuffer:
    """The rows of an iteration; the next one overwrites them.

    Args:
        shape: its sizes.
        tensors: by name, those of `BufferShape.numbers`, `prefixes` and `images`; numbers and prefixes on the policy's
            device, images on the CPU.

    Attributes:
        rows: the rows that this process may write.
        used: number of rows written since `clear`.
        log_prob, value: (R,) float32, of the rollout.
    """

    def __init__(self, shape: BufferShape, tensors: Mapping[str, Tensor]) -> None:
        self.shape, self.rows, self.used = shape, range(shape.rows), 0
        self._tensors = tensors
        self.log_prob, self.value = tensors["log_prob"], tensors["value"]
        self.device = self.value.device
        self.prefixes = None
        if shape.keeps_prefix:
            self.prefixes = PrefixStore(tensors["prefix"], tensors["valid"], tensors.get("mean_token"))
        self._padded = False

    def clear(self, rows: range) -> None:
        """Forget all rows, and write to `rows` from now on."""
        self.rows, self.used = rows, 0

    def write(self, observation: Observation, explored: Explored, running: np.ndarray) -> np.ndarray:
        """Keep a policy call of N observations, which are on the CPU, for the slots that are `running` (N,) bool.

        Returns:
            (N,) int64, the row of every slot; -1 where no episode is running.
        """
        slots = np.flatnonzero(running)
        first = self.rows.start + self.used
        if first + len(slots) > self.rows.stop:
            raise RuntimeError(f"the rollout buffer has only {len(self.rows)} rows")
        self.used += len(slots)
        chosen = None if len(slots) == len(running) else on_device(slots, self.device)
        kept = slice(first, first + len(slots))
        values = {"state": to_device(observation.state, self.device), **explored.transitions._asdict()}
        values |= {"log_prob": explored.evaluated.log_prob, "value": explored.evaluated.value}
        for name, value in values.items():
            self._tensors[name][kept] = value if chosen is None else value[chosen]
        padded = bool((observation.prompt_mask[slots].sum(1) < self.shape.prompt_tokens).any())
        if self.prefixes is not None:
            self.prefixes.write(first, explored.prefix, chosen, padded=padded)
        else:
            self._padded |= padded
            self._write_images(kept, observation, slots)
        rows = np.full(len(running), -1, dtype=np.int64)
        rows[slots] = np.arange(first, first + len(slots))
        return rows

    def read(self, rows: np.ndarray, following: np.ndarray | None = None) -> Batch:
        """Copies of the rows `rows`, on the policy's device. `following` are the rows that will be read next."""
        index = on_device(rows, self.device)
        state, *transitions = (self._tensors[name][index] for name in ("state", *Transitions._fields))
        prefix = observation = None
        if self.prefixes is not None:
            prefix, padded = self.prefixes.read(rows, following), self.prefixes.padded
        else:
            observation, padded = self._observation(rows, state), self._padded
        return Batch(state, Transitions(*transitions), prefix, observation, padded)

    def _write_images(self, kept: slice, observation: Observation, slots: np.ndarray) -> None:
        index = torch.from_numpy(slots)
        for camera in self.shape.cameras:
            self._tensors[f"image.{camera}"][kept] = observation.images[camera][index]
        for name in ("prompt_tokens", "prompt_mask"):
            value = getattr(observation, name)[index]
            self._tensors[name][kept, : value.shape[1]] = value
            self._tensors[name][kept, value.shape[1] :] = 0

    def _observation(self, rows: np.ndarray, state: Tensor) -> Observation:
        index, cameras = torch.from_numpy(rows), self.shape.cameras

        def fetched(name: str) -> Tensor:
            found = self._tensors[name][index]
            return to_device(found.pin_memory() if self.device.type == "cuda" else found, self.device)

        present = torch.ones(len(rows), dtype=torch.bool, device=self.device)
        return Observation(
            # In the order in memory that the rollout has them in: some CPUs choose another convolution for another.
            images={
                camera: fetched(f"image.{camera}").contiguous(memory_format=torch.channels_last) for camera in cameras
            },
            image_masks=dict.fromkeys(cameras, present),
            state=state,
            prompt_tokens=fetched("prompt_tokens"),
            prompt_mask=fetched("prompt_mask"),
            present_cameras=cameras,
            padded=self._padded,
        )
