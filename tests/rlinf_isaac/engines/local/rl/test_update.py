"""Gradients of a real small policy on a real experience."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.rl.experience import make_experience, ordered
from rlinf_isaac.engines.local.rl.gradients import MEANS
from rlinf_isaac.engines.local.rl.optimisers import Optimisers, learning_rate
from rlinf_isaac.engines.local.rl.players import Players
from rlinf_isaac.engines.local.rl.start import load_actor_critic
from rlinf_isaac.engines.local.rl.train import training_seeds
from rlinf_isaac.engines.local.rl.update import update


@pytest.fixture(params=["auto", "none"], ids=["prefixes", "images"])
def played(make_job, result_of, request):
    """Shaped rewards of subtasks that are all but never reached, so advantages come from the values."""
    job = make_job("rl.epochs=1", f"rl.prefix_memory={request.param}")
    policy, rl = load_actor_critic(job), job.config.rl
    with Players(job.config, job.start.norm_stats_bytes, policy) as players:
        (rollout,) = result_of(players.explore(training_seeds(rl, 1), range(rl.episodes), 1))
        experience = make_experience(*ordered(rollout.episodes), players.buffer.log_prob, players.buffer.value, rl)
        assert (players.buffer.prefixes is None) == (request.param == "none")
        yield policy, players, experience


def gradients_of(policy, players, experience, indices, learn=True):
    """Name -> gradient, and the numbers of the shard."""
    policy.zero_grad(set_to_none=True)
    numbers = players.add_gradients(experience, indices, learn, None)
    named = policy.checkpoint_module().named_parameters()
    found = {name: each.grad.clone() for name, each in named if each.grad is not None}
    policy.zero_grad(set_to_none=True)
    return found, numbers


def test_log_probabilities_and_values_of_the_update_are_those_of_the_rollout(played):
    """In rows of the rollout's batch, for every chunk of the iteration, bit by bit."""
    policy, players, experience = played
    for start in range(0, len(experience), 2):
        rows = experience.rows[start : start + 2]
        again = players.buffer.read(rows).score(policy)
        assert torch.equal(again.log_prob.detach(), players.buffer.log_prob[rows])
        torch.testing.assert_close(again.value.detach(), players.buffer.value[rows])


def test_parts_of_a_minibatch_add_up_to_it(played):
    """The last piece is filled up with rows that must not count."""
    policy, players, experience = played
    assert len(experience) == 8
    whole, means = gradients_of(policy, players, experience, np.arange(8))
    parts = [gradients_of(policy, players, experience, rows) for rows in (np.arange(3), np.arange(3, 8))]
    for name, gradient in whole.items():
        total = parts[0][0][name] * 3 / 8 + parts[1][0][name] * 5 / 8
        torch.testing.assert_close(total, gradient, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close((parts[0][1] * 3 + parts[1][1] * 5)[:-1] / 8, means[:-1], rtol=1e-4, atol=1e-6)
    assert means[-1] == 0


def test_gradients_of_several_minibatches_are_summed(played):
    policy, players, experience = played
    first, second = (gradients_of(policy, players, experience, rows)[0] for rows in (np.arange(4), np.arange(4, 8)))
    players.add_gradients(experience, np.arange(4), True, np.arange(4, 8))
    players.add_gradients(experience, np.arange(4, 8), True, None)
    for name, parameter in policy.checkpoint_module().named_parameters():
        if parameter.grad is not None:
            assert torch.equal(parameter.grad, first[name] + second[name])


def test_while_the_value_head_warms_up_the_policy_rests(played, result_of):
    policy, players, experience = played
    policy.rl.warmup_iterations = 1
    optimisers = Optimisers(policy)
    before = {name: tensor.clone() for name, tensor in policy.checkpoint_module().state_dict().items()}
    result_of(update(policy.rl, optimisers, experience, 1, players))
    after = policy.checkpoint_module().state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith("value_head.") for name in moved)
    result_of(update(policy.rl, optimisers, experience, 2, players))
    assert not torch.equal(policy.model.action_out_proj.weight, before["action_out_proj.weight"])


def test_the_learning_rate_rises_once_the_policy_learns():
    rl = RlConfig(lr=4.0, warmup_iterations=2, lr_warmup=4)
    assert [learning_rate(rl, iteration) for iteration in range(1, 9)] == [0, 0, 1, 2, 3, 4, 4, 4]
    assert learning_rate(RlConfig(lr=4.0), 1) == 4.0


def test_a_large_divergence_ends_the_update(played, result_of):
    policy, players, experience = played
    policy.rl.epochs, policy.rl.lr, policy.rl.target_kl = 10, 1e-2, 1e-3
    means = result_of(update(policy.rl, Optimisers(policy), experience, 1, players))
    assert means["train/stopped_early"] == 1.0
    assert means["train/epochs"] < 10
    assert means["train/final_approx_kl"] > 1e-3
    assert means["train/first_ratio_error"] == 0.0
    assert set(MEANS) < means.keys()


def test_an_accumulated_step_is_that_of_the_whole(played, result_of, monkeypatch):
    """One policy step per epoch, with the mean gradient of its minibatches."""
    policy, players, experience = played
    rows, steps = len(experience), []
    start = {name: tensor.clone() for name, tensor in policy.checkpoint_module().state_dict().items()}
    for minibatch, accumulate in ((rows, 1), (rows // 4, 0), (rows // 4, 1)):
        policy.checkpoint_module().load_state_dict(start)
        policy.rl.minibatch, policy.rl.accumulate = minibatch, accumulate
        optimisers = Optimisers(policy)
        # A plain step, to compare gradients; Adam's first one is but their signs.
        for optimiser in (optimisers.actor, optimisers.critic):
            monkeypatch.setattr(optimiser, "step", lambda optimiser=optimiser: _descend(optimiser, rate=1e-3))
        result_of(update(policy.rl, optimisers, experience, 1, players))
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
