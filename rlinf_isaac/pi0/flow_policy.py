"""The flow policy as a stochastic policy whose log-probabilities are known, for policy gradients.

Sampling has K denoising steps from t = 1 (noise) to 0 (actions), dt = 1/K. With velocity v at (x, t), the deterministic
step is x - v dt. There are two ways to make the step a Gaussian N(mean, std^2) (pi_RL arXiv 2510.25889; RLinf
``openpi_action_model.py``):

flow-SDE, at one or more randomly chosen steps of a call; the other steps are deterministic:
    s = a sqrt(t / (1 - t)), with 1 - t_1 = 1/K in the denominator at t = 1, and a the noise level;
    mean = x - v dt - s^2 dt / (2 t) x_1, where x_1 = x + (1 - t) v is the predicted noise; std = s sqrt(dt).
    The drift compensates for the noise: as dt goes to 0, x has the same distribution at every t as in the plain flow.
flow-noise, at every step: mean = x - v dt, std learned (`heads.NoiseHead`).

The log-probability of a call is that of its stochastic steps, summed over the robot's real dims of the `action_chunk`
actions that the environment receives. For flow-noise it is averaged over the starting noise and the K steps, as in
RLinf. All `action_chunk` actions count, as in RLinf, including the actions of an episode's last chunk after the episode
has ended: no reward depends on those, so they add noise to the gradient but no bias.
`sample` and `log_probabilities` share `_score`, so that with equal weights and an equal number of rows the
recomputed log-probability equals the sampled one bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.config.schema import PolicyConfig
from rlinf_isaac.pi0.heads import NoiseHead, ValueHead, initialise_heads
from rlinf_isaac.pi0.lora import is_adapter
from rlinf_isaac.pi0.model import Pi0, PrefixCache
from rlinf_isaac.pi0.trainable import is_trained

LOG_SQRT_TAU = 0.5 * math.log(2 * math.pi)


class Draws(NamedTuple):
    """The randomness of a batch of B calls; S is `FlowActorCritic.stochastic_steps`.

    Attributes:
        start: (B, H, A) standard normal, the noise from which the flow starts.
        noise: (B, S, H, A) standard normal, added in the stochastic steps.
        steps: (B, S) int64, indices of the stochastic steps among the K denoising steps, ascending.
    """

    start: Tensor
    noise: Tensor
    steps: Tensor


class Transitions(NamedTuple):
    """The stochastic steps of a batch of calls, from which their log-probability can be recomputed.

    Attributes:
        before, after: (B, S, H, A), x of the flow before and after each stochastic step.
        steps: (B, S) int64, their indices.
    """

    before: Tensor
    after: Tensor
    steps: Tensor


class Evaluated(NamedTuple):
    """Log-probability, value and entropy (nats per action element) of a batch of calls, each (B,)."""

    log_prob: Tensor
    value: Tensor
    entropy: Tensor


class FlowActorCritic(nn.Module):
    """A pi0 that samples actions stochastically and estimates the value of an observation.

    ``rl.trainable`` says what of the model trains (`trainable`), beside the adapters that it may have; the heads do in
    any case.

    The input of the value head is, for pi0, the mean of the expert's action tokens at the stochastic steps; they are
    computed before the noise of the step is added, so the value is a valid baseline. For pi0.5 it is the mean prefix
    token.

    Attributes:
        model: the policy.
        heads: ``value_head`` and, for flow-noise, ``noise_head``.
    """

    def __init__(self, model: Pi0, policy: PolicyConfig, rl: RlConfig) -> None:
        """The heads are initialised from `rl.seed` and are on the model's device."""
        super().__init__()
        config = model.config
        self.model, self.policy, self.rl = model, policy, rl
        self.heads = nn.ModuleDict()
        self.heads["value_head"] = ValueHead(config.vlm.width if config.pi05 else config.expert.width, rl.value_widths)
        if rl.exploration == "flow_noise":
            self.heads["noise_head"] = NoiseHead(config.expert.width, config.action_dim, rl.noise_min, rl.noise_max)
        initialise_heads(self.heads, rl.seed)
        device = model.action_in_proj.weight.device
        self.heads.to(device)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(is_adapter(name) or is_trained(name, rl))
        steps = policy.denoise_steps
        times = [1 - step / steps for step in range(steps)]
        level = rl.noise_level if rl.exploration == "flow_sde" else 0.0  # flow-noise has a head instead
        levels = [level * math.sqrt(t / (1 - t if t < 1 else 1 / steps)) for t in times]
        self.register_buffer("times", torch.tensor(times, device=device), persistent=False)
        self.register_buffer("levels", torch.tensor(levels, device=device), persistent=False)

    @property
    def stochastic_steps(self) -> int:
        """S, the number of stochastic steps among the K denoising steps of a call."""
        count = 0 if self.rl.exploration == "flow_noise" else self.rl.noise_steps
        return count or self.policy.denoise_steps

    def actor_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and values of the policy's trainable parameters, and those of the noise head."""
        for name, parameter in self.checkpoint_module().named_parameters():
            if parameter.requires_grad and not name.startswith("value_head."):
                yield name, parameter

    def checkpoint_module(self) -> nn.Module:
        """Model and heads as one module, with the parameter names of a checkpoint. The parameters are shared."""
        whole = nn.Module()
        for name, child in [*self.model.named_children(), *self.heads.named_children()]:
            whole.add_module(name, child)
        return whole

    @property
    def prefix_is_frozen(self) -> bool:
        """Whether updates do not change prefix caches, because nothing of the VLM trains."""
        return self.rl.trainable == "expert"

    @torch.no_grad()
    def prefix(self, observation: Any) -> PrefixCache:
        """The prefix cache of an `Observation`."""
        return self.model.prefix_cache(observation, mean_token=self.model.config.pi05)

    def training_prefix(self, observation: Any) -> PrefixCache:
        """The prefix cache of an `Observation`, with gradients unless the VLM is frozen."""
        if self.prefix_is_frozen:
            return self.prefix(observation)
        return self.model.prefix_cache(observation, mean_token=self.model.config.pi05)

    @torch.no_grad()
    def sample(self, state: Tensor, cache: PrefixCache, draws: Draws) -> tuple[Tensor, Transitions, Evaluated]:
        """Samples actions (B, H, A). Also returns the stochastic steps, their log-probability, value and entropy."""

        def velocity(x: Tensor, step: int) -> tuple[Tensor, Tensor]:
            index = torch.full((len(x),), step, device=x.device)
            return self.model.velocity(state, x, self.get_buffer("times")[index], cache)

        return self.explore(velocity, cache.mean_token, draws)

    @torch.no_grad()
    def explore(
        self, velocity: Callable[[Tensor, int], tuple[Tensor, Tensor]], mean_token: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Transitions, Evaluated]:
        """`sample` with any code that computes the velocity. A CUDA graph can capture it: the host reads no result.

        Args:
            velocity: x (B, H, A) and the index of a denoising step -> velocity (B, H, A) and the expert's output tokens
                (B, H, W), both float32.
            mean_token: as in `PrefixCache`; pi0 does not need it.
            draws: on the device of the model.
        """
        path, points = [draws.start], []
        rows = torch.arange(len(draws.start), device=draws.start.device)
        for step in range(self.policy.denoise_steps):
            x = path[-1]
            point = self._point(x, *velocity(x, step), mean_token)
            mean, std = self._gaussian(point, torch.full_like(rows, step))
            is_this_step = draws.steps == step  # (B, S), at most one True per row
            noisy = mean + std * draws.noise[rows, is_this_step.int().argmax(1)]
            stochastic = is_this_step.any(1)[:, None, None]
            path.append(torch.where(stochastic, noisy, self._deterministic(point)))
            points.append(point)
        # The stochastic steps of every row are taken from the stacked steps of all rows, and only they are scored.
        places = rows[:, None], draws.steps
        present = (cast("tuple[Tensor, ...]", each) for each in zip(*points, strict=True) if each[0] is not None)
        stacked = [torch.stack(each, 1)[places] for each in present]
        transitions = Transitions(stacked[0], torch.stack(path, 1)[rows[:, None], draws.steps + 1], draws.steps)
        scores = []
        for slot in range(draws.steps.shape[1]):
            point = _Point(*(each[:, slot] for each in stacked))
            scores.append(self._score(transitions.after[:, slot], point, draws.steps[:, slot]))
        return path[-1], transitions, self._joint(transitions, scores)

    def log_probabilities(self, state: Tensor, cache: PrefixCache, transitions: Transitions) -> Evaluated:
        """Log-probability, value and entropy of recorded transitions under the current weights; differentiable."""
        scores = []
        for slot in range(transitions.steps.shape[1]):
            x, step = transitions.before[:, slot], transitions.steps[:, slot]
            velocity, tokens = self.model.velocity(state, x, self.get_buffer("times")[step], cache)
            point = self._point(x, velocity, tokens, cache.mean_token)
            scores.append(self._score(transitions.after[:, slot], point, step))
        return self._joint(transitions, scores)

    def _point(self, x: Tensor, velocity: Tensor, tokens: Tensor, mean_token: Tensor | None) -> _Point:
        value_input = mean_token if self.model.config.pi05 else tokens.mean(1)
        assert value_input is not None
        std = self.heads["noise_head"](tokens) if self.rl.exploration == "flow_noise" else None
        return _Point(x, velocity, value_input, std)

    def _deterministic(self, point: _Point) -> Tensor:
        return point.x - point.velocity / self.policy.denoise_steps

    def _gaussian(self, point: _Point, step: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the stochastic denoising step `step` (B,) from a point."""
        deterministic = self._deterministic(point)
        if point.std is not None:
            return deterministic, point.std
        count = self.policy.denoise_steps
        t, s = (self.get_buffer(name)[step][:, None, None] for name in ("times", "levels"))
        drift = s**2 / (2 * t * count) * (point.x + (1 - t) * point.velocity)
        return deterministic - drift, (s * count**-0.5).expand_as(point.x)

    def _score(self, after: Tensor, point: _Point, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, std = self._gaussian(point, step)
        log_prob = self._counted(normal_log_density(after, mean, std)).sum((1, 2))
        entropy = self._counted(std.log()).mean((1, 2)) + 0.5 + LOG_SQRT_TAU
        return log_prob, self.heads["value_head"](point.value_input), entropy

    def _joint(self, transitions: Transitions, scores: list[tuple[Tensor, Tensor, Tensor]]) -> Evaluated:
        log_prob, value, entropy = (sum(term[1:], term[0]) for term in zip(*scores, strict=True))
        if self.rl.exploration == "flow_noise":
            start = transitions.before[:, 0]
            zero, one = torch.zeros_like(start), torch.ones_like(start)
            initial = self._counted(normal_log_density(start, zero, one)).sum((1, 2))
            log_prob = (log_prob + initial) / (self.policy.denoise_steps + 1)
        count = transitions.steps.shape[1]
        return Evaluated(log_prob, value / count, entropy / count)

    def _counted(self, x: Tensor) -> Tensor:
        return x[:, : self.policy.action_chunk, : self.policy.env_action_dim]


class _Point(NamedTuple):
    """A point of the flow, and what depends on it alone: velocity, the value head's input, and flow-noise's std."""

    x: Tensor
    velocity: Tensor
    value_input: Tensor
    std: Tensor | None = None


def normal_log_density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log density of a normal distribution, element by element, in float32."""
    x, mean, std = x.float(), mean.float(), std.float()
    return -0.5 * ((x - mean) / std) ** 2 - std.log() - LOG_SQRT_TAU
