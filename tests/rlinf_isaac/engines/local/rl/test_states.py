"""A checkpoint that a training goes back to gives weights and moments bit by bit; what is kept of them on disk."""

from __future__ import annotations

import pytest
import torch

from rlinf_isaac.engines.local.rl.saving import save
from rlinf_isaac.engines.local.rl.states import States


def step(optimisers, seed):
    """One step of both optimisers with random gradients."""
    generator = torch.Generator().manual_seed(seed)
    for optimiser in (optimisers.actor, optimisers.critic):
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimisers.step(policy=True)


def snapshot(policy, optimisers):
    weights = {name: tensor.clone() for name, tensor in policy.checkpoint_module().state_dict().items()}
    moments = [
        {key: value.clone() for key, value in optimiser.state[parameter].items()}
        for optimiser in (optimisers.actor, optimisers.critic)
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


@pytest.fixture(params=["expert", "lora"])
def trained(make_job, request):
    """Three checkpoints, of which the first was needed when the second, and the second when the third was saved."""
    job = make_job("rl.noise_steps=1", f"rl.trainable={request.param}")
    states = States(job.output)
    policy, optimisers = states.load(job, 0)
    seen = {0: snapshot(policy, optimisers)}
    for number in (1, 2, 3):
        step(optimisers, number)
        list(save(job, states, policy, optimisers, number, number - 1))
        seen[number] = snapshot(policy, optimisers)
    return job, policy, states, seen


@pytest.mark.parametrize("number", [0, 2, 3])
def test_weights_and_moments_are_those_of_then(trained, number):
    job, policy, states, seen = trained
    assert states.steps == [3, 2]
    assert_equal(snapshot(policy, states.go_back(job, policy, number)), seen[number])
    assert_equal(snapshot(*states.load(job, number)), seen[number])


def test_without_a_state_the_optimisers_begin_anew(trained):
    job, policy, states, seen = trained
    for weights, moments in (snapshot(policy, states.go_back(job, policy, 1)), snapshot(*states.load(job, 1))):
        assert all(torch.equal(weights[name], seen[1][0][name]) for name in weights)
        assert not any(moments)


def test_a_state_that_is_not_needed_is_written_over(trained):
    job, policy, states, seen = trained
    optimisers = states.go_back(job, policy, 3)
    step(optimisers, 4)
    list(save(job, states, policy, optimisers, 4, 2))
    assert states.steps == [4, 2]
    assert_equal(snapshot(policy, states.go_back(job, policy, 2)), seen[2])
