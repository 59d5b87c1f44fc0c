from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.engines.local.rl.advantages import chunk_rewards, gae, group_advantages, normalised

numbers = st.floats(-10, 10)
episodes = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40)


@settings(deadline=None, max_examples=100)
@given(episode=episodes, gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1))
def test_gae_is_the_sum_of_its_definition(episode, gamma, gae_lambda):
    rewards, values = map(np.array, zip(*episode, strict=True))
    advantages, returns = gae(rewards, values, gamma, gae_lambda)
    length = len(rewards)
    for t in range(length):
        expected = 0.0
        for k in range(length - t):
            next_value = values[t + k + 1] if t + k + 1 < length else 0.0
            expected += (gamma * gae_lambda) ** k * (rewards[t + k] + gamma * next_value - values[t + k])
        assert advantages[t] == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(returns, advantages + values)


@settings(deadline=None, max_examples=50)
@given(episode=episodes, gamma=st.floats(0, 1))
def test_with_lambda_1_the_return_is_the_discounted_sum_of_rewards(episode, gamma):
    rewards, values = map(np.array, zip(*episode, strict=True))
    _, returns = gae(rewards, values, gamma, 1.0)
    for t in range(len(rewards)):
        expected = sum(gamma**k * reward for k, reward in enumerate(rewards[t:]))
        assert returns[t] == pytest.approx(expected, abs=1e-9)


def test_groups_are_compared_within_themselves():
    advantages = group_advantages(np.array([1.0, 0.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0]), 4)
    first = np.array([1.0, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(advantages[:4], (first - 0.75) / (0.5 + 1e-6))
    np.testing.assert_array_equal(advantages[4:], 0.0)


def test_returns_that_make_no_whole_groups_are_an_error():
    with pytest.raises(ValueError, match="reshape"):
        group_advantages(np.zeros(7), 4)


def test_normalised():
    advantages = normalised(np.array([1.0, 2.0, 6.0]))
    assert advantages.mean() == pytest.approx(0.0)
    assert advantages.std() == pytest.approx(1.0)
    np.testing.assert_array_equal(normalised(np.full(3, 2.0)), 0.0)


def test_a_subtask_is_rewarded_where_it_is_first_reached():
    rewards = chunk_rewards([0, 0, 0, 1], [(), ("grasp_1",), ("grasp_1",), ("grasp_1", "stack_1")], 0.25)
    np.testing.assert_array_equal(rewards, [0, 0.25, 0, 1.25])
    np.testing.assert_array_equal(chunk_rewards([0, 1], [("grasp_1",), ()]), [0, 1])
