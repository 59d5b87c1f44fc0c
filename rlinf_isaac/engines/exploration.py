"""How a policy explores, and how what it did is judged again under other weights; the same in both engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rlinf_isaac.ground.errors import TrainingDiverged
from rlinf_isaac.pi0.fast.explorer import Explored
from rlinf_isaac.pi0.flow_policy import Draws, Evaluated, FlowActorCritic, Transitions
from rlinf_isaac.pi0.kept_prefix import KeptPrefix
from rlinf_isaac.pi0.observation import Observation
from rlinf_isaac.pi0.policy import Processor


class Sampler(Protocol):
    """Samples a policy call."""

    def __call__(self, observation: Observation, draws: Draws) -> Explored:
        """What the policy does; the arguments are on the CPU. The prefix may be overwritten by the next call."""
        ...

    def refresh(self) -> None:
        """Take over weights that have changed in place."""
        ...


class PlainSampler:
    """Samples by plain torch, on any device.

    Args:
        policy: the policy; its present weights are read in every call.
    """

    def __init__(self, policy: FlowActorCritic) -> None:
        self.policy = policy

    def __call__(self, observation: Observation, draws: Draws) -> Explored:
        device = _device(self.policy)
        observation = observation.to(device)
        cache = self.policy.prefix(observation)
        sampled = self.policy.sample(observation.state, cache, Draws(*(tensor.to(device) for tensor in draws)))
        return Explored(*sampled, KeptPrefix.of(cache))

    def refresh(self) -> None:
        """Nothing is derived from the weights ahead of a call."""


def exploration_draws(policy: FlowActorCritic, keys: Sequence[tuple[int, ...]]) -> Draws:
    """The randomness of one policy call, on the CPU: for each row a function of (rl.seed, its key) alone.

    Args:
        policy: says how many denoising steps are stochastic, and the shape of the flow.
        keys: one for each row; all have the same length. Their first number keeps these random numbers apart from those
            of other purposes under the same seed.
    """
    config, seed = policy.model.config, policy.rl.seed
    shape = config.action_horizon, config.action_dim
    count = policy.stochastic_steps
    starts, noises, chosen = [], [], []
    for key in keys:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *key))))
        starts.append(generator.standard_normal(shape, dtype=np.float32))
        noises.append(generator.standard_normal((count, *shape), dtype=np.float32))
        chosen.append(np.sort(generator.permutation(policy.policy.denoise_steps)[:count]))
    return Draws(*(torch.from_numpy(np.stack(each)) for each in (starts, noises, chosen)))


def act_exploring(
    policy: FlowActorCritic,
    processor: Processor,
    images: Mapping[str, np.ndarray],
    states: np.ndarray,
    prompts: Sequence[str],
    draws: Draws,
) -> tuple[np.ndarray, Transitions, Evaluated]:
    """What the policy does, drawn by `draws`, for N observations as of `Processor.observation`.

    Returns:
        Action chunks (N, chunk, A) float32 in robot units; the stochastic steps on the way there, and their
        log-probabilities and values, on the policy's device.

    Raises:
        TrainingDiverged: an action is not finite: the last step of the update before made the weights useless.
    """
    device = _device(policy)
    observation = processor.observation(images, states, prompts).to(device)
    drawn = Draws(*(tensor.to(device) for tensor in draws))
    actions, transitions, evaluated = policy.sample(observation.state, policy.prefix(observation), drawn)
    return robot_chunk(policy, processor, actions, states), transitions, evaluated


def robot_chunk(policy: FlowActorCritic, processor: Processor, actions: Tensor, states: np.ndarray) -> np.ndarray:
    """The action chunks (N, chunk, A) float32 in robot units of sampled actions (N, H, A).

    Raises:
        TrainingDiverged: an action is not finite: the last step of the update before made the weights useless.
    """
    chunk = processor.robot_actions(actions[:, : policy.policy.action_chunk], states)
    if not np.isfinite(chunk).all():
        raise TrainingDiverged(f"the policy's actions are not finite any more. Lower rl.lr (now {policy.rl.lr})")
    return chunk


def evaluated_again(
    policy: FlowActorCritic,
    processor: Processor,
    images: Mapping[str, np.ndarray],
    states: np.ndarray,
    prompts: Sequence[str],
    transitions: Transitions,
) -> Evaluated:
    """Log-probabilities and values of what `act_exploring` did, under the present weights; with gradients."""
    device = _device(policy)
    observation = processor.observation(images, states, prompts).to(device)
    taken = Transitions(*(tensor.to(device) for tensor in transitions))
    return policy.log_probabilities(observation.state, policy.prefix(observation), taken)


def _device(policy: FlowActorCritic) -> torch.device:
    return next(policy.model.parameters()).device
