"""A prefix that was kept is, bit for bit, the cache it was kept from, and its rows can be taken."""

from __future__ import annotations

import torch

from rlinf_isaac.pi0.kept_prefix import KeptPrefix


def test_the_velocity_behind_a_kept_prefix_is_that_behind_the_cache(model, config, make_observation):
    observation = make_observation(config)
    cache = model.prefix_cache(observation, mean_token=config.pi05)
    kept = KeptPrefix.of(cache)
    order = torch.tensor([2, 0, 1])
    x = torch.randn(3, config.action_horizon, config.action_dim, generator=torch.Generator().manual_seed(2))
    time = torch.tensor([1.0, 0.5, 0.25])

    expected, _ = model.velocity(observation.state, x, time, cache)
    again, _ = model.velocity(observation.state, x, time, kept.cache(model, padded=True))
    reordered = kept.rows(order).cache(model, padded=True)
    permuted, _ = model.velocity(observation.state[order], x[order], time[order], reordered)

    assert torch.equal(again, expected)
    torch.testing.assert_close(permuted, expected[order])
    assert (kept.mean_token is None) == (not config.pi05)
    if config.pi05:
        assert torch.equal(reordered.mean_token, cache.mean_token[order])
