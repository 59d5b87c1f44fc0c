"""The update of policy and value head in one iteration.

The learners add the gradient of a minibatch to ``.grad`` of the policy's parameters (`gradients`): in this process on a
GPU, or in several on a CPU. Here the gradients are clipped, and the optimisers take their steps. On a GPU everything is
queued, and the metrics are read at the end, or after every minibatch if the KL divergence may end the update.

Several processes that train together each add their own rows, have the sums of gradients and metrics, and so decide
alike and take the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Protocol

import numpy as np
import torch

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.rl.experience import Experience, minibatches
from rlinf_isaac.engines.local.rl.gradients import MEANS
from rlinf_isaac.engines.local.rl.optimisers import Optimisers, learning_rate
from rlinf_isaac.engines.local.rl.ppo import explained_variance
from rlinf_isaac.engines.local.rl.timing import Stopwatch
from rlinf_isaac.engines.local.training.team import ALONE, Team
from rlinf_isaac.ground.errors import TrainingDiverged

LAST_LOOK = 64
"""Number of rows on which the KL divergence is computed after the last step of an update."""
KL = MEANS.index("train/approx_kl")
METRICS = (*MEANS, "train/critic_grad_norm", "train/grad_norm")
"""Means over the minibatches; the last one over those after which the policy has stepped."""


class Learners(Protocol):
    """Compute gradients of minibatches."""

    def add_gradients(
        self, experience: Experience, indices: np.ndarray, learn: bool, following: np.ndarray | None
    ) -> torch.Tensor:
        """As `gradients.add_gradients`, for the chunks `indices` of `experience`; `following` are the next ones."""
        ...


def update(
    rl: RlConfig,
    optimisers: Optimisers,
    experience: Experience,
    iteration: int,
    learners: Learners,
    team: Team = ALONE,
    *,
    depth: int | None = None,
    lr_factor: float = 1.0,
) -> Generator[tuple[int, int], None, dict[str, float]]:
    """Update the policy with `rl.epochs` epochs over `experience`. Collective call of the team.

    Args:
        rl: how; `minibatch` is that of all processes together.
        optimisers: of the policy and value head.
        experience: experience of this iteration.
        iteration: number of the iteration, 1-based.
        learners: compute the gradients.
        team: the processes that train together.
        depth: how many iterations led to the weights after this update, for the schedules; `iteration` unless the
            training has gone back.
        lr_factor: what the learning rate of the policy is multiplied by.

    Yields:
        Number of minibatches so far, and in all.

    Returns:
        Metrics, averaged over the minibatches.

    Raises:
        TrainingDiverged: a loss, the gradient, or the KL divergence after the last step is not finite.
    """
    seen: list[torch.Tensor] = []
    stepped: list[bool] = []
    first_ratio_error, epochs, stop = torch.zeros(()), 0, False
    depth = iteration if depth is None else depth
    learn = depth > rl.warmup_iterations
    stepping, exchanging = (Stopwatch(experience.targets.values.device) for _ in range(2))
    optimisers.set_learning_rate(learning_rate(rl, depth) * lr_factor)
    optimisers.zero_grad(policy=True)
    for epoch in range(rl.epochs):
        # Shuffle the action chunks and cut them into minibatches.
        batches = list(minibatches(experience, rl, iteration, epoch, team))
        waiting = 0  # minibatches whose gradients of the policy are accumulated for its next step
        for number, indices in enumerate(batches, start=1):
            # The learners compute the gradients of the minibatch. During the first `warmup_iterations` only the value
            # head learns.
            optimisers.zero_grad(policy=waiting == 0)
            following = batches[number] if number < len(batches) else None
            means = _of_all(team, learners.add_gradients(experience, indices, learn, following))
            waiting += 1
            # The value head takes a step after every minibatch. The policy takes one after `accumulate` minibatches
            # (0: only at the end of the epoch), and after the epoch's last, with the mean of their gradients.
            policy_steps = learn and (number % (rl.accumulate or len(batches)) == 0 or number == len(batches))
            # Sum the gradients that are about to be used over the processes.
            with exchanging.part():
                optimisers.add_up(team, policy=policy_steps)
            # Before the first step the weights are those of the rollout, so all probability ratios should be 1.
            if not seen:
                first_ratio_error = means[-1]
            with stepping.part():
                seen.append(_step(optimisers, means[:-1], waiting, policy_steps, rl, iteration))
            stepped.append(policy_steps)
            if policy_steps:
                waiting = 0
            yield len(seen), rl.epochs * len(batches)
            # Early stopping: end the update if the KL divergence from the rollout's policy, estimated on this
            # minibatch, exceeds `target_kl`.
            stop = rl.target_kl > 0 and rl.target_kl < float(_checked(seen[-1], rl, iteration)[KL])
            if stop:
                break
        epochs += 1
        if stop:
            break
    values = np.stack([_checked(each, rl, iteration) for each in torch.stack(seen).cpu()])
    # The losses were computed before each step, so they do not show whether the last step has ruined the policy.
    # The KL divergence on some rows does.
    looked = batches[0][: -(-LAST_LOOK // team.size)]
    final_kl = float(_of_all(team, learners.add_gradients(experience, looked, False, None))[KL])
    optimisers.zero_grad(policy=True)
    if not math.isfinite(final_kl):
        raise _diverged(rl, [f"approx_kl {final_kl}"], iteration)
    means_of_all = dict(zip(METRICS[:-1], values[:, :-1].mean(0).tolist(), strict=True))
    if any(stepped):
        means_of_all[METRICS[-1]] = float(values[stepped, -1].mean())
    return {
        **means_of_all,
        "train/final_approx_kl": final_kl,
        "train/first_ratio_error": float(first_ratio_error),
        "train/epochs": float(epochs),
        "train/stopped_early": float(stop),
        "train/explained_variance": explained_variance(experience.values, experience.returns),
        "time/optimiser_s": stepping.seconds,
        **({"time/exchange_s": exchanging.seconds} if team.size > 1 else {}),
    }


def _of_all(team: Team, numbers: torch.Tensor) -> torch.Tensor:
    """The numbers of `gradients.add_gradients` for the rows of all processes. Collective call of the team."""
    return torch.cat([team.total(numbers[:-1].clone()), team.largest(numbers[-1:].clone())])


def _step(
    optimisers: Optimisers, means: torch.Tensor, minibatches: int, policy_steps: bool, rl: RlConfig, iteration: int
) -> torch.Tensor:
    """Clip the gradients and take the steps; returns the numbers of the minibatch, named `METRICS`.

    Args:
        optimisers: of the policy and value head, whose parameters have gradients.
        means: metrics of the minibatch, on the policy's device.
        minibatches: number of minibatches over which the policy's gradients are summed.
        policy_steps: whether the policy steps, or only the value head.
        rl, iteration: for messages.
    """
    if optimisers.queued:
        norms = optimisers.queue(minibatches, means.sum(), policy=policy_steps)
        return torch.cat([means, torch.stack(norms).double()])
    norms = optimisers.clip(minibatches, policy=policy_steps)
    numbers = torch.cat([means, torch.stack(norms).double()])
    _checked(numbers, rl, iteration)
    optimisers.step(policy=policy_steps)
    return numbers


def _checked(numbers: torch.Tensor, rl: RlConfig, iteration: int) -> np.ndarray:
    """The numbers of a minibatch; waits for them. Raises TrainingDiverged if one of them is not finite."""
    found = numbers.cpu().numpy()
    pairs = zip(METRICS, found.tolist(), strict=True)
    if wrong := [f"{name} {value}" for name, value in pairs if not math.isfinite(value)]:
        raise _diverged(rl, wrong, iteration)
    return found


def _diverged(rl: RlConfig, wrong: Sequence[str], iteration: int) -> TrainingDiverged:
    return TrainingDiverged(
        f"{', '.join(wrong)} in iteration {iteration}; the checkpoints before it are kept. Lower rl.lr (now {rl.lr}), "
        f"or set rl.target_kl (now {rl.target_kl}) to end updates earlier"
    )
