"""On real small models, pi0 and pi0.5, with weights that leave nothing at its start value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.pi0.flow_policy import Draws, FlowActorCritic, Transitions, normal_log_density

STEPS = 3


@pytest.fixture(params=["flow_sde", "flow_noise"])
def policy(request, model, policy_config) -> FlowActorCritic:
    rl = RlConfig(exploration=request.param, noise_level=0.5, value_widths=[16, 8])
    return FlowActorCritic(model, policy_config, rl)


def draws_of(policy: FlowActorCritic, steps=(0, 1, 2), seed: int = 0) -> Draws:
    """For three rows; flow-SDE's row i is stochastic at step ``steps[i]``."""
    generator = torch.Generator().manual_seed(seed)
    shape = policy.model.config.action_horizon, policy.model.config.action_dim
    count = policy.stochastic_steps
    chosen = torch.arange(STEPS).expand(3, STEPS) if count > 1 else torch.tensor(steps)[:, None]
    return Draws(
        torch.randn(3, *shape, generator=generator), torch.randn(3, count, *shape, generator=generator), chosen
    )


def sampled(policy, observation, draws):
    return policy.sample(observation.state, policy.prefix(observation), draws)


def test_recomputed_log_probabilities_are_the_sampled_ones_bit_by_bit(policy, config, make_observation):
    observation = make_observation(config)
    _, transitions, evaluated = sampled(policy, observation, draws_of(policy))
    again = policy.log_probabilities(observation.state, policy.prefix(observation), transitions)
    for before, now in zip(evaluated, again, strict=True):
        assert torch.equal(before, now.detach())
        assert before.shape == (3,)
    assert again.log_prob.requires_grad
    assert len(set(evaluated.log_prob.tolist())) == 3


def test_rows_may_come_in_another_order(policy, config, make_observation):
    """A minibatch mixes rows of many calls. Three rows, fewer than a kernel's tile, may round differently by place."""
    observation = make_observation(config)
    _, transitions, evaluated = sampled(policy, observation, draws_of(policy))
    order = torch.tensor([2, 0, 1])
    mixed = type(observation)(
        images={name: image[order] for name, image in observation.images.items()},
        image_masks={name: mask[order] for name, mask in observation.image_masks.items()},
        state=observation.state[order],
        prompt_tokens=observation.prompt_tokens[order],
        prompt_mask=observation.prompt_mask[order],
    )
    again = policy.log_probabilities(
        mixed.state, policy.prefix(mixed), Transitions(*(tensor[order] for tensor in transitions))
    )
    torch.testing.assert_close(again.log_prob.detach(), evaluated.log_prob[order], rtol=1e-6, atol=1e-5)


def test_without_noise_it_is_the_plain_flow(config, model, policy_config, make_observation):
    """At level 0 the drift and the noise vanish; what is left is `Pi0.sample`, bit by bit."""
    rl = RlConfig(exploration="flow_sde", noise_level=0.0, value_widths=[8])
    policy, observation = FlowActorCritic(model, policy_config, rl), make_observation(config)
    draws = draws_of(policy)
    actions, _, _ = sampled(policy, observation, draws)
    assert torch.equal(actions, model.sample(observation, draws.start, STEPS))


def test_log_probability_is_that_of_a_normal_distribution(config, model, policy_config, make_observation):
    """Against the formulas of the module's docstring, written with torch.distributions."""
    policy = FlowActorCritic(model, policy_config, RlConfig(noise_level=0.5, value_widths=[8]))
    observation, draws = make_observation(config), draws_of(policy)
    cache = policy.prefix(observation)
    _, transitions, evaluated = sampled(policy, observation, draws)
    for row, step in enumerate((0, 1, 2)):
        t, dt = 1 - step / STEPS, 1 / STEPS
        x = transitions.before[:, 0]
        velocity, _ = model.velocity(observation.state, x, torch.full((3,), t), cache)
        s = 0.5 * math.sqrt(t / (1 - t if step else dt))
        x0, x1 = x - velocity * t, x + velocity * (1 - t)
        mean = x0 * (1 - (t - dt)) + x1 * (t - dt - s**2 * dt / (2 * t))
        normal = torch.distributions.Normal(mean, math.sqrt(dt) * s)
        expected = normal.log_prob(transitions.after[:, 0])[row, :4, :7].sum()
        torch.testing.assert_close(evaluated.log_prob[row], expected.detach(), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(
            transitions.after[row, 0], (mean + math.sqrt(dt) * s * draws.noise[:, 0])[row].detach()
        )
        assert float(evaluated.entropy[row]) == pytest.approx(
            float(torch.distributions.Normal(0.0, math.sqrt(dt) * s).entropy()), rel=1e-5
        )


def test_standard_deviations_of_flow_sde(config, model, make_config, policy_config):
    """RLinf's with 4 denoising steps and noise level 0.5."""
    policy_config.denoise_steps = 4
    policy = FlowActorCritic(model, policy_config, RlConfig(noise_level=0.5, value_widths=[8]))
    np.testing.assert_allclose(policy.get_buffer("levels").numpy() * 0.5, [0.5, 0.433, 0.25, 0.144], atol=5e-4)


def test_flow_noise_is_the_mean_over_start_and_steps(config, model, policy_config, make_observation):
    policy = FlowActorCritic(model, policy_config, RlConfig(exploration="flow_noise", value_widths=[8]))
    observation = make_observation(config)
    cache = policy.prefix(observation)
    actions, transitions, evaluated = sampled(policy, observation, draws_of(policy))
    assert torch.equal(transitions.after[:, -1], actions)
    start = transitions.before[:, 0]
    total = torch.distributions.Normal(0.0, 1.0).log_prob(start)
    for step in range(STEPS):
        x = transitions.before[:, step]
        velocity, tokens = model.velocity(observation.state, x, torch.full((3,), 1 - step / STEPS), cache)
        std = policy.heads["noise_head"](tokens).detach()
        assert float(std.min()) >= 0.08 - 1e-6
        assert float(std.max()) <= 0.16 + 1e-6
        normal = torch.distributions.Normal(x - velocity / STEPS, std)
        total = total + normal.log_prob(transitions.after[:, step]).detach()
    expected = total[:, :4, :7].sum((1, 2)) / (STEPS + 1)
    torch.testing.assert_close(evaluated.log_prob, expected, rtol=1e-4, atol=1e-3)


def test_only_expert_projections_and_heads_train(policy, config, make_observation):
    observation = make_observation(config)
    _, transitions, _ = sampled(policy, observation, draws_of(policy))
    evaluated = policy.log_probabilities(observation.state, policy.prefix(observation), transitions)
    (evaluated.log_prob.sum() + evaluated.value.sum()).backward()
    moved = {name for name, each in policy.checkpoint_module().named_parameters() if each.grad is not None}
    actor = {name for name, _ in policy.actor_parameters()}
    assert not any(name.startswith("paligemma_with_expert.paligemma") for name in moved | actor)
    assert moved == actor | {name for name in moved if name.startswith("value_head.")}
    assert any(name.startswith("noise_head.") for name in moved) == (policy.rl.exploration == "flow_noise")
    assert "action_out_proj.weight" in moved


def test_the_value_does_not_train_the_policy(policy, config, make_observation):
    observation = make_observation(config)
    _, transitions, _ = sampled(policy, observation, draws_of(policy))
    policy.log_probabilities(observation.state, policy.prefix(observation), transitions).value.sum().backward()
    assert all(each.grad is None for _, each in policy.actor_parameters())
    assert all(each.grad is not None for each in policy.heads["value_head"].parameters())


def test_the_value_sees_the_state_or_the_prefix(policy, config, make_observation):
    first, second = make_observation(config), make_observation(config, seed=1)
    values = [sampled(policy, each, draws_of(policy))[2].value for each in (first, second)]
    assert (values[0] != values[1]).all()


def test_heads_are_a_function_of_the_seed(model, policy_config):
    def heads(seed: int):
        rl = RlConfig(exploration="flow_noise", seed=seed, value_widths=[8])
        return FlowActorCritic(model, policy_config, rl).heads.state_dict()

    first, again, other = heads(0), heads(0), heads(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_normal_log_density_is_computed_in_float32():
    x = torch.tensor([0.3], dtype=torch.bfloat16)
    density = normal_log_density(x, torch.zeros_like(x), torch.tensor([0.1], dtype=torch.bfloat16))
    assert density.dtype == torch.float32
