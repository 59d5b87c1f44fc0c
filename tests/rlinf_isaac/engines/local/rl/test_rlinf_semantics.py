"""The rows of the table "here and in RLinf" in docs/reinforcement_learning.md, in numbers, with RLinf's own functions.

RLINF_PYTHON=rlinf-venv/bin/python python -m pytest -m rlinf tests/rlinf_isaac/engines/local/rl
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from rlinf_support import PYTHON, TESTS

from rlinf_isaac.engines.local.rl.advantages import gae, group_advantages, normalised
from rlinf_isaac.engines.local.rl.ppo import explained_variance, policy_loss, value_loss

GAMMA, LAMBDA, CLIP, DUAL = 0.99, 0.95, 0.2, 3.0
pytestmark = pytest.mark.rlinf


@pytest.fixture(scope="module")
def rlinf() -> Iterator[Callable[..., dict[str, np.ndarray]]]:
    """Calls a function of `rlinf_functions` in RLinf's interpreter."""
    if subprocess.run([PYTHON, "-c", "import rlinf.algorithms"], capture_output=True).returncode:
        pytest.skip("RLinf is not installed; set RLINF_PYTHON")
    command = [PYTHON, str(TESTS / "rlinf_functions.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def call(name, **arguments):
            process.stdin.write(json.dumps({"name": name, **arguments}) + "\n")
            process.stdin.flush()
            answer = next(line for line in process.stdout if line.startswith("{"))
            return {key: np.array(value) for key, value in json.loads(answer).items()}

        yield call
        process.stdin.close()


def played(seed=0, chunks=6, steps=2):
    """Rewards (T, steps) of an episode that succeeds at its end, values (T + 1,), and done flags (T + 1, steps)."""
    random = np.random.default_rng(seed)
    rewards, dones = np.zeros((chunks, steps)), np.zeros((chunks + 1, steps), bool)
    rewards[-1, -1] = 1.0
    dones[-1, -1] = True
    return rewards, random.normal(0.5, 0.3, chunks + 1), dones


def theirs(rlinf, rewards, values, dones, normalise=False):
    columns = {"rewards": rewards.tolist(), "values": values[:, None].tolist(), "dones": dones.tolist()}
    return rlinf("gae", **columns, gamma=GAMMA, gae_lambda=LAMBDA, normalise=normalise)


def test_gae_is_over_chunks_and_what_follows_a_done_does_not_count(rlinf):
    rewards, values, dones = played()
    advantages, returns = gae(rewards.sum(1), values[:-1], GAMMA, LAMBDA)
    found = theirs(rlinf, rewards, values, dones)
    np.testing.assert_allclose(advantages, found["advantages"], atol=1e-6)
    np.testing.assert_allclose(returns, found["returns"], atol=1e-6)


def test_a_time_out_is_worth_nothing_here_and_its_value_there(rlinf):
    """``compute_bootstrap_rewards`` of RLinf's env_worker.py adds gamma V(final observation) to the last reward of a
    truncated episode if ``auto_reset`` is on. Its function of advantages then sees an episode that is done."""
    rewards, values, dones = played()
    rewards[-1, -1] = 0.0
    advantages, _ = gae(rewards.sum(1), values[:-1], GAMMA, LAMBDA)
    np.testing.assert_allclose(advantages, theirs(rlinf, rewards, values, dones)["advantages"], atol=1e-6)
    rewards[-1, -1] = GAMMA * values[-1]
    added = theirs(rlinf, rewards, values, dones)["advantages"] - advantages
    np.testing.assert_allclose(added, GAMMA * values[-1] * (GAMMA * LAMBDA) ** np.arange(5, -1, -1), atol=1e-6)


def test_advantages_are_normalised_with_another_divisor(rlinf):
    rewards, values, dones = played()
    advantages, _ = gae(rewards.sum(1), values[:-1], GAMMA, LAMBDA)
    found = theirs(rlinf, rewards, values, dones, normalise=True)["advantages"]
    np.testing.assert_allclose(
        (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-5), found, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(normalised(advantages) * math.sqrt(5 / 6), found, rtol=1e-3)


def test_episodes_that_all_ended_alike_teach_noise_there_and_little_here(rlinf):
    """Values that are wrong by a thousandth give advantages of size 1 in RLinf, and of size 0.1 at most here."""
    rewards, values, dones = played()
    rewards[:], values = 0.0, 1e-3 * values
    advantages, _ = gae(rewards.sum(1), values[:-1], GAMMA, LAMBDA)
    assert theirs(rlinf, rewards, values, dones, normalise=True)["advantages"].std() > 0.8
    assert normalised(advantages).std() < 0.1


def test_the_chunk_in_which_an_episode_ends_counts_and_later_ones_do_not(rlinf):
    dones = np.zeros((6, 3), bool)
    dones[3, 1:] = True  # the third chunk ends after its second action; the env stays done
    dones[4:] = True
    assert rlinf("loss_mask", dones=dones.tolist())["chunks"].tolist() == [True, True, True, False, False]


def test_every_chunk_weighs_the_same_here_and_every_episode_there(rlinf):
    """Two episodes of 2 and 4 chunks of at most 4. RLinf divides a chunk's loss by its episode's share of the longest
    possible one, where it masks (no ``auto_reset``)."""
    losses = np.array([[1.0, 5.0], [1.0, 5.0], [0.0, 5.0], [0.0, 5.0]])
    mask = np.array([[1, 1], [1, 1], [0, 1], [0, 1]], bool)
    assert rlinf("weighted", losses=losses.tolist(), mask=mask.tolist(), max_steps=4)["loss"] == pytest.approx(3.0)
    assert losses[mask].mean() == pytest.approx((2 * 1 + 4 * 5) / 6)


def test_the_clipped_loss_and_its_gradient_are_the_same_and_the_estimate_of_the_divergence_is_not(rlinf):
    random = np.random.default_rng(1)
    old = random.normal(50, 5, 64)
    new, advantages = old + random.normal(0, 0.8, 64), random.normal(0, 1, 64)
    columns = {"log_probs": new.tolist(), "old": old.tolist(), "advantages": advantages.tolist()}
    found = rlinf("actor", **columns, clip=CLIP, dual_clip=DUAL)
    parameter = torch.tensor(new, dtype=torch.float32, requires_grad=True)
    others = (torch.tensor(each, dtype=torch.float32) for each in (old, advantages))
    ours = policy_loss(parameter, *others, clip_ratio=CLIP, dual_clip=DUAL)
    ours.loss.backward()
    assert float(ours.loss.detach()) == pytest.approx(found["loss"].item(), rel=1e-4)
    np.testing.assert_allclose(parameter.grad.numpy(), found["gradient"], atol=1e-6)
    ratio = np.exp(new - old)
    assert found["kl"] == pytest.approx(-np.log(ratio).mean(), abs=1e-5)
    assert float(ours.approx_kl) == pytest.approx((ratio - 1 - np.log(ratio)).mean(), rel=1e-4)
    # Here: ratios outside of the range. There: those of them that the clip takes out of the loss.
    outside = abs(ratio - 1) > CLIP
    acts = (-advantages * ratio) < (-advantages * ratio.clip(1 - CLIP, 1 + CLIP))
    assert float(ours.clip_fraction) == pytest.approx(outside.mean())
    assert found["clip_fraction"] == pytest.approx(acts.mean())
    assert not (acts & ~outside).any()


def test_the_value_loss_is_the_same(rlinf):
    random = np.random.default_rng(2)
    values, returns, old = random.normal(0, 1, (3, 64))
    columns = {"values": values.tolist(), "returns": returns.tolist(), "old": old.tolist()}
    found = rlinf("critic", **columns, value_clip=0.2, delta=1.0)
    tensors = [torch.tensor(each) for each in (values, old, returns)]
    assert float(value_loss(*tensors, value_clip=0.2, delta=1.0)) == pytest.approx(found["loss"].item(), rel=1e-5)
    ours = explained_variance(tensors[0], tensors[2])
    assert ours == pytest.approx(found["explained_variance"].item(), rel=1e-5)
    columns["returns"] = [1.0] * 64
    assert np.isnan(rlinf("critic", **columns, value_clip=0.2, delta=1.0)["explained_variance"])
    assert explained_variance(tensors[0], torch.ones(64)) == 0.0


def test_group_advantages_are_the_same(rlinf):
    returns = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    found = rlinf("grpo", returns=returns, group_size=4)["advantages"]
    np.testing.assert_allclose(group_advantages(np.array(returns), 4), found, atol=1e-6)
