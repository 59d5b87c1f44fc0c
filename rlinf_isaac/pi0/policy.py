"""The policy: observations and actions as numpy arrays in robot units, through OpenPI's transforms and the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlinf_isaac.config.fits import check_chunk
from rlinf_isaac.config.schema import ModelConfig, PolicyConfig
from rlinf_isaac.data.delta_actions import check_delta_mask, parse_delta_mask, to_absolute, to_delta
from rlinf_isaac.data.norm_stats.normaliser import Normalizer, norm_mode
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.pi0.fast.sampler import GraphSampler
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.observation import CAMERAS, Observation
from rlinf_isaac.pi0.tokenizer import Tokenizer, pad_tokens
from rlinf_isaac.pi0.transforms import pad_last, resize_with_pad
from rlinf_isaac.tasks.adapters import Adapter

if TYPE_CHECKING:
    from rlinf_isaac.data.norm_stats import NormStats


class Processor:
    """Converts between robot units and model tensors, in the same way for training and inference. A robot's action has
    A' dims, ``policy.env_action_dim``.

    Args:
        model: architecture; gives image size, action dim and prompt length.
        policy: normalisation mode and number of real action dims.
        norm_stats: statistics of ``state`` and ``actions``.
        tokenizer: see `load_tokenizer`.
        adapter: brings the robot's numbers into the form that the model knows; None leaves them as they are.

    Raises:
        NormStatsError: statistics are missing, or have fewer dims than the actions.
        InvalidJob: the robot has more action dims than the model, or `policy.delta_actions` does not fit the dims.
    """

    def __init__(
        self,
        model: ModelConfig,
        policy: PolicyConfig,
        norm_stats: NormStats,
        tokenizer: Tokenizer,
        adapter: Adapter | None = None,
    ) -> None:
        if policy.env_action_dim > model.action_dim:
            cause = f"policy.env_action_dim {policy.env_action_dim} exceeds model.action_dim {model.action_dim}"
            raise InvalidJob.of("action-dim", cause, "lower policy.env_action_dim")
        self.model, self.policy, self.tokenizer, self.adapter = model, policy, tokenizer, adapter
        mode = norm_mode(policy.norm, model.pi05)
        self.state_normalizer = Normalizer.of("state", norm_stats.state, mode)
        self.action_normalizer = Normalizer.of("actions", norm_stats.actions, mode)
        self.action_normalizer.check_dims(policy.env_action_dim)
        self.delta_mask = parse_delta_mask(policy.delta_actions)
        if problems := check_delta_mask(self.delta_mask, self.state_normalizer.dims, policy.env_action_dim):
            raise InvalidJob(problems)

    def observation(self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str]) -> Observation:
        """A batch of N observations, on the CPU.

        Args:
            images: camera (`CAMERAS`) -> (N, h, w, 3) uint8. A camera that is missing is masked.
            states: (N, D) in robot units.
            prompts: N task descriptions.

        Raises:
            NormStatsError: D is more than the norm stats have.
            TokenizerError: a prompt is too long.
            ValueError: an image is of no camera that the model has.
        """
        if unknown := sorted(images.keys() - set(CAMERAS)):
            raise ValueError(f"the model has no camera {' and '.join(unknown)}; it has {', '.join(CAMERAS)}")
        normalized = self.state_normalizer.normalize(self._adapted(states))
        tokens, mask = self._prompts(prompts, normalized)
        batch, size = len(states), self.model.vision.image_size
        absent = torch.zeros(1, 3, size, size, dtype=torch.uint8).expand(batch, -1, -1, -1)
        cameras = {
            camera: torch.from_numpy(resize_with_pad(image, size)).permute(0, 3, 1, 2)
            for camera, image in images.items()
        }
        return Observation(
            images={camera: cameras.get(camera, absent) for camera in CAMERAS},
            image_masks={camera: torch.full((batch,), camera in cameras) for camera in CAMERAS},
            state=torch.from_numpy(pad_last(normalized, self.model.action_dim)),
            prompt_tokens=torch.from_numpy(tokens),
            prompt_mask=torch.from_numpy(mask),
        )

    def target_actions(self, actions: np.ndarray, states: np.ndarray) -> Tensor:
        """Recorded actions (N, H, A') in robot units -> the model's training targets, (N, H, action_dim), float32.

        `states` (N, D), in robot units, are the states at the start of the chunks; delta actions are relative to them.
        """
        if self.adapter is not None:
            actions = self.adapter.actions(actions)
        relative = to_delta(actions, self._adapted(states), self.delta_mask)
        return torch.from_numpy(pad_last(self.action_normalizer.normalize(relative), self.model.action_dim))

    def robot_actions(self, actions: Tensor, states: np.ndarray) -> np.ndarray:
        """Sampled actions (N, H, action_dim) -> robot units (N, H, A'), float32; `states` as for `target_actions`."""
        sampled = actions[..., : self.policy.env_action_dim].float().cpu().numpy()
        absolute = to_absolute(self.action_normalizer.unnormalize(sampled), self._adapted(states), self.delta_mask)
        return absolute if self.adapter is None else self.adapter.to_robot(absolute)

    def _adapted(self, states: np.ndarray) -> np.ndarray:
        return states if self.adapter is None else self.adapter.state(states)

    def _prompts(self, prompts: Sequence[str], states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.model.discrete_state_input:
            encoded = [self.tokenizer.encode(prompt, state) for prompt, state in zip(prompts, states, strict=True)]
            # Here the number of tokens depends on the state. Padding to a fixed length keeps a row's result independent
            # of the other rows.
            return pad_tokens(encoded, self.model.max_token_len, length=self.model.max_token_len)
        tokens_of = {prompt: self.tokenizer.encode(prompt) for prompt in set(prompts)}
        return pad_tokens([tokens_of[prompt] for prompt in prompts], self.model.max_token_len)


class Prepared(NamedTuple):
    """A batch of observations that is ready for the model, and the states (N, D) in it, in robot units."""

    observation: Observation
    states: np.ndarray


class Pi0Policy:
    """A model with its processor, ready to act. One call gives one action chunk per environment.

    Args:
        model: on any device; it is moved to `device` and set to eval mode.
        processor: the processor of the same checkpoint.
        policy: action chunk and denoising steps.
        device: torch device.
        compile: on a CUDA device, sample with `pi0.fast`. The weights are then read at the first call of `act`; after
            a later change of the weights a new policy is needed.
        sampler: sample with this one, of the same model, whose owner refreshes it after a change of the weights.

    Raises:
        InvalidJob: the action chunk is longer than the model's horizon.
    """

    def __init__(
        self,
        model: Pi0,
        processor: Processor,
        policy: PolicyConfig,
        device: torch.device | str,
        *,
        compile: bool = False,
        sampler: GraphSampler | None = None,
    ) -> None:
        if misfits := list(check_chunk(policy, model.config)):
            raise InvalidJob([problem for _, problem in misfits])
        self.model = model.to(device).eval()
        self.processor, self.policy, self.device = processor, policy, torch.device(device)
        self.compiled = sampler is not None or (compile and self.device.type == "cuda")
        self._sampler = sampler
        self._warmed_before = sampler.warmup_seconds if sampler else 0.0
        self._last: tuple[Tensor, np.ndarray] | None = None  # what was sampled in the last call, and the states in it

    @property
    def noise_shape(self) -> tuple[int, int]:
        """Shape (H, A) of the noise for one environment."""
        return self.model.config.action_horizon, self.model.config.action_dim

    @property
    def warmup_seconds(self) -> float:
        """Time that this policy has spent so far on compiling kernels and capturing graphs."""
        return self._sampler.warmup_seconds - self._warmed_before if self._sampler else 0.0

    def act(
        self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str], noise: np.ndarray
    ) -> np.ndarray:
        """Action chunks (N, action_chunk, A') float32 in robot units; see `Processor.observation` for the inputs.

        `noise` (N, H, A) float32 is the only randomness: equal inputs give equal actions, bit by bit. For a given N, a
        row does not depend on the other rows as long as their prompts have the same length.
        """
        return self.act_on(self.prepare(images, states, prompts), noise)

    def prepare(self, images: Mapping[str, np.ndarray], states: np.ndarray, prompts: Sequence[str]) -> Prepared:
        """What of `act` needs no device: for a GPU, the observation is then in pinned memory. Thread-safe."""
        observation = self.processor.observation(images, states, prompts)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):  # a thread begins on the first device
                observation = observation.seen().pinned()
        return Prepared(observation, states)

    def act_on(self, prepared: Prepared, noise: np.ndarray) -> np.ndarray:
        """`act` on what `prepare` has returned."""
        start = torch.from_numpy(np.ascontiguousarray(noise, dtype=np.float32)).to(self.device)
        observation = prepared.observation.to(self.device)
        if self.compiled:
            self._sampler = self._sampler or GraphSampler(self.model, self.policy.denoise_steps)
            actions = self._sampler(observation, start)
        else:
            actions = self.model.sample(observation, start, self.policy.denoise_steps)
        self._last = actions, prepared.states
        return self.processor.robot_actions(actions[:, : self.policy.action_chunk], prepared.states)

    def predicted(self) -> np.ndarray:
        """All actions (N, H, A') float32 in robot units that the last call has sampled; it has returned the first of
        them. To be asked before the next call.

        Raises:
            ValueError: there was no call yet.
        """
        if self._last is None:
            raise ValueError("the policy has not acted yet")
        return self.processor.robot_actions(*self._last)


def episode_noise(policy_seed: int, episode_seed: int, call_index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 noise of one policy call of one episode.

    The noise depends on the arguments only (Philox counter-based generator), so an episode gets the same noise for any
    number and order of environments and on any device. Seeds and index must be in [0, 2^32).
    """
    key = (policy_seed, episode_seed, call_index)
    if not all(0 <= part < 2**32 for part in key):
        raise ValueError(f"policy_seed, episode_seed and call_index must be in [0, 2^32), got {key}")
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    return generator.standard_normal(shape, dtype=np.float32)
