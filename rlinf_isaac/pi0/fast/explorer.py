"""Exploring as CUDA graphs: a stochastic rollout call with its log-probabilities and values, and the prefix it used."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlinf_isaac.pi0.fast.graphs import Addresses
from rlinf_isaac.pi0.fast.inputs import Inputs
from rlinf_isaac.pi0.fast.sampler import GraphSampler, gather
from rlinf_isaac.pi0.flow_policy import Draws, Evaluated, FlowActorCritic, Transitions
from rlinf_isaac.pi0.kept_prefix import KeptPrefix
from rlinf_isaac.pi0.observation import Observation


class Explored(NamedTuple):
    """What a rollout call did.

    Attributes:
        actions: (B, H, A) float32, normalised.
        transitions, evaluated: its stochastic steps, and their log-probability, value and entropy.
        prefix: of the observations, whose prompts are padded. By `FastNetwork`, an observation's valid tokens come
            first.
    """

    actions: Tensor
    transitions: Transitions
    evaluated: Evaluated
    prefix: KeptPrefix


class GraphExplorer:
    """A `FlowActorCritic` that explores on a GPU, captured as a CUDA graph once for every shape of its inputs.

    It runs `FastNetwork` if that fits the model, and otherwise `FlowActorCritic.sample` itself. After the weights have
    changed in place, call `refresh`. Not thread-safe.

    Attributes:
        sampler: samples without exploring, by the same network and in the same memory. It is refreshed, too.
    """

    def __init__(self, policy: FlowActorCritic) -> None:
        self.policy = policy
        self.sampler = GraphSampler(policy.model, policy.policy.denoise_steps)
        self._addresses = Addresses(policy)

    @property
    def warmup_seconds(self) -> float:
        """Time spent so far, by the sampler too, on joining weights, compiling kernels and capturing graphs."""
        return self.sampler.warmup_seconds

    def __call__(self, observation: Observation, draws: Draws) -> Explored:
        """What the policy does; the arguments may be on any device, the result is on the model's.

        The prefix lies in memory of the graph: it is valid until the next call of the explorer.
        """
        inputs, padded = gather(observation, draws.start)

        def run(tensors: tuple[Tensor, ...]) -> Explored:
            *own, noise, steps = tensors
            given = Inputs.of(own)
            return self._explore(given, Draws(given.noise, noise, steps), padded)

        found = self.sampler.graphs(("explore", padded), (*inputs.tensors(), draws.noise, draws.steps), run)
        return Explored(
            found.actions.clone(),
            Transitions(*(tensor.clone() for tensor in found.transitions)),
            Evaluated(*(tensor.clone() for tensor in found.evaluated)),
            found.prefix,
        )

    def refresh(self) -> None:
        """Takes over weights of the model and the heads that have changed in place. The captured graphs stay.

        Raises:
            RuntimeError: parameters have moved in memory.
        """
        self._addresses.check()
        self.sampler.refresh()

    @torch.no_grad()
    def _explore(self, inputs: Inputs, draws: Draws, padded: bool) -> Explored:
        policy, network = self.policy, self.sampler.network
        if network is None:
            observation = inputs.observation(padded)
            cache = policy.prefix(observation)
            return Explored(*policy.sample(observation.state, cache, draws), KeptPrefix.of(cache))
        context = network.context(inputs, padded, mean_token=policy.model.config.pi05)

        def velocity(x: Tensor, step: int) -> tuple[Tensor, Tensor]:
            return network.velocity(x, step, context)

        return Explored(*policy.explore(velocity, context.mean_token, draws), context.kept())
