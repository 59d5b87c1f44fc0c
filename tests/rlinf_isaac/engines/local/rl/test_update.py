"""Gradients of a real small policy on a real experience."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.rl.experience import make_experience
from rlinf_isaac.engines.local.rl.train import load_actor_critic, training_seeds
from rlinf_isaac.engines.local.rl.update import evaluate, learning_rate, make_optimiser, update
from rlinf_isaac.engines.local.rl.workers import RolloutWorkers


@pytest.fixture
def played(make_job):
    """Shaped rewards of subtasks that are all but never reached, so advantages come from the values."""
    job = make_job("rl.epochs=1")
    policy = load_actor_critic(job)
    with RolloutWorkers(job.config, job.start.norm_stats_bytes, policy) as players:
        rollouts = players.explore(training_seeds(job.config.rl, 1), 1)
        episodes = [episode for rollout in rollouts for episode in rollout.episodes]
        yield policy, players, make_experience(episodes, job.config.rl)


def test_log_probabilities_and_values_of_the_update_are_those_of_the_rollout(played):
    """In rows of the rollout's batch, for every chunk of the iteration, bit by bit."""
    policy, players, experience = played
    for start in range(0, len(experience), 2):
        rows = experience.rows(np.arange(start, start + 2))
        again = evaluate(policy, players.player.processor, rows)
        assert torch.equal(again.log_prob.detach(), rows.log_probs)
        torch.testing.assert_close(again.value.detach(), rows.values)


def test_parts_of_a_minibatch_add_up_to_it(played):
    """The last piece is filled up with rows that must not count."""
    _, players, experience = played
    player = players.player
    whole = player.gradient(experience, len(experience), True)
    parts = [player.gradient(experience.rows(rows), len(experience), True) for rows in (np.arange(3), np.arange(3, 8))]
    assert len(experience) == 8
    for name, gradient in whole.gradients.items():
        np.testing.assert_allclose(sum(part.gradients[name] for part in parts), gradient, rtol=1e-3, atol=1e-6)
    for name, mean in whole.means.items():
        assert sum(part.means[name] for part in parts) == pytest.approx(mean, rel=1e-4, abs=1e-6)


def test_while_the_value_head_warms_up_the_policy_rests(played):
    policy, players, experience = played
    policy.rl.warmup_iterations = 1
    optimiser = make_optimiser(policy)
    before = {name: tensor.clone() for name, tensor in policy.checkpoint_module().state_dict().items()}
    update(policy, optimiser, experience, 1, players.gradients)
    after = policy.checkpoint_module().state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith("value_head.") for name in moved)
    update(policy, optimiser, experience, 2, players.gradients)
    assert not torch.equal(policy.model.action_out_proj.weight, before["action_out_proj.weight"])


def test_the_learning_rate_rises_once_the_policy_learns():
    rl = RlConfig(lr=4.0, warmup_iterations=2, lr_warmup=4)
    assert [learning_rate(rl, iteration) for iteration in range(1, 9)] == [0, 0, 1, 2, 3, 4, 4, 4]
    assert learning_rate(RlConfig(lr=4.0), 1) == 4.0


def test_a_large_divergence_ends_the_update(played):
    policy, players, experience = played
    policy.rl.epochs, policy.rl.lr, policy.rl.target_kl = 10, 1e-2, 1e-3
    means = update(policy, make_optimiser(policy), experience, 1, players.gradients)
    assert means["train/stopped_early"] == 1.0
    assert means["train/epochs"] < 10
    assert means["train/final_approx_kl"] > 1e-3
    assert means["train/first_ratio_error"] == 0.0


def test_an_accumulated_step_is_that_of_the_whole(played):
    """One policy step per epoch, with the mean gradient of its minibatches."""
    policy, players, experience = played
    rows, steps = len(experience), []
    start = {name: tensor.clone() for name, tensor in policy.checkpoint_module().state_dict().items()}
    for minibatch, accumulate in ((rows, 1), (rows // 4, 0), (rows // 4, 1)):
        policy.checkpoint_module().load_state_dict(start)
        policy.rl.minibatch, policy.rl.accumulate = minibatch, accumulate
        optimiser = make_optimiser(policy)
        # A plain step, to compare gradients; Adam's first one is but their signs.
        optimiser.step = lambda optimiser=optimiser: _descend(optimiser, rate=1e-3)
        update(policy, optimiser, experience, 1, players.gradients)
        steps.append(policy.model.action_out_proj.weight.detach() - start["action_out_proj.weight"])
    whole, accumulated, single = steps
    torch.testing.assert_close(accumulated, whole, rtol=1e-3, atol=1e-7)
    assert float((single - whole).abs().max()) > 1e-5


@torch.no_grad()
def _descend(optimiser, rate: float) -> None:
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
