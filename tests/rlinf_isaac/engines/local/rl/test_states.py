"""A checkpoint that a training goes back to gives weights and moments bit by bit; what is kept of them on disk."""

from __future__ import annotations

import pytest
import torch

from rlinf_isaac.engines.local.rl.states import States
from rlinf_isaac.engines.local.rl.train import _save, load_actor_critic
from rlinf_isaac.engines.local.rl.update import make_optimiser


def step(policy, optimiser, seed):
    """One optimiser step with random gradients."""
    generator = torch.Generator().manual_seed(seed)
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimiser.step()


def snapshot(policy, optimiser):
    weights = {name: tensor.clone() for name, tensor in policy.checkpoint_module().state_dict().items()}
    moments = [
        {key: value.clone() for key, value in optimiser.state[parameter].items()}
        for group in optimiser.param_groups
        for parameter in group["params"]
    ]
    return weights, moments


def assert_equal(one, other):
    for name in one[0]:
        assert torch.equal(one[0][name], other[0][name]), name
    assert len(one[1]) == len(other[1])
    for mine, yours in zip(one[1], other[1], strict=True):
        assert mine.keys() == yours.keys()
        assert all(torch.equal(mine[key], yours[key]) for key in mine)


@pytest.fixture
def trained(make_job):
    """Three checkpoints, of which the first was needed when the second, and the second when the third was saved."""
    job = make_job("rl.noise_steps=1")
    policy = load_actor_critic(job)
    optimiser, states, seen = make_optimiser(policy), States(job.output), {0: snapshot(policy, make_optimiser(policy))}
    for number in (1, 2, 3):
        step(policy, optimiser, number)
        _save(job, states, policy, optimiser, number, number - 1)
        seen[number] = snapshot(policy, optimiser)
    return job, policy, states, seen


@pytest.mark.parametrize("number", [0, 2, 3])
def test_weights_and_moments_are_those_of_then(trained, number):
    job, policy, states, seen = trained
    assert states.steps == [3, 2]
    assert_equal(snapshot(policy, states.restore(number, job, policy)), seen[number])


def test_without_a_state_the_optimiser_begins_anew(trained):
    job, policy, states, seen = trained
    weights, moments = snapshot(policy, states.restore(1, job, policy))
    assert all(torch.equal(weights[name], seen[1][0][name]) for name in weights)
    assert not any(moments)


def test_a_state_that_is_not_needed_is_written_over(trained):
    job, policy, states, seen = trained
    optimiser = states.restore(3, job, policy)
    step(policy, optimiser, 4)
    _save(job, states, policy, optimiser, 4, 2)
    assert states.steps == [4, 2]
    assert_equal(snapshot(policy, states.restore(2, job, policy)), seen[2])
