from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.rl.advantages import gae
from rlinf_isaac.engines.local.rl.experience import Experience, Played, make_experience, minibatches, ordered
from rlinf_isaac.engines.local.training.team import ALONE, Team


def played(index: int, rewards: list[float], subtasks=None) -> Played:
    """Its rows can be told apart: chunk t of it lies in row 10 index + t."""
    return Played(
        index=index,
        seed=100 + index,
        prompt=f"prompt {index}",
        success=sum(rewards) > 0,
        length=8 * len(rewards),
        rewards=np.array(rewards),
        subtasks=tuple(subtasks or [()] * len(rewards)),
        rows=10 * index + np.arange(len(rewards)),
    )


def experience_of(episodes, rl):
    """In a buffer of 40 rows, whose log-probabilities and values are their numbers and half of them."""
    numbers = torch.arange(40.0)
    return make_experience(*ordered(episodes), numbers, numbers / 2, rl)


def test_rows_are_in_the_order_of_episodes_whoever_finished_first():
    first, second = played(0, [0, 0, 1]), played(1, [0])
    experience = experience_of([second, first], RlConfig())
    assert len(experience) == 4
    assert experience.rows.tolist() == experience.targets.log_probs.tolist() == [0, 1, 2, 10]
    assert experience.values.tolist() == [0, 0.5, 1, 5]
    values = [np.array([0, 0.5, 1]), np.array([5.0])]
    pairs = zip((first, second), values, strict=True)
    expected = np.concatenate([gae(each.rewards, own, 0.99, 0.95)[1] for each, own in pairs])
    np.testing.assert_allclose(experience.returns.numpy(), expected, rtol=1e-6)
    assert float(experience.targets.advantages.mean()) == pytest.approx(0, abs=1e-6)


def test_shaped_rewards_count_subtasks_and_plain_ones_do_not():
    episode = played(0, [0, 1], [("grasp_1",), ("grasp_1",)])
    returns = [
        experience_of([episode], RlConfig(reward=reward, gamma=1.0, gae_lambda=1.0, subtask_reward=0.5)).returns
        for reward in ("success", "shaped")
    ]
    np.testing.assert_allclose(returns[0], [1.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(returns[1], [1.5, 1.0], atol=1e-6)


def test_grpo_gives_every_chunk_of_an_episode_its_advantage():
    episodes = [played(index, rewards) for index, rewards in enumerate([[0, 1], [0], [0, 0], [0, 0, 0]])]
    experience = experience_of(episodes, RlConfig(algorithm="grpo", group_size=2))
    high = 0.5 / (np.sqrt(0.5) + 1e-6)
    np.testing.assert_allclose(experience.targets.advantages, [high, high, -high, 0, 0, 0, 0, 0], rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(rows=st.integers(1, 100), size=st.integers(1, 100), epoch=st.integers(0, 3))
def test_minibatches_are_whole_disjoint_and_a_function_of_their_arguments(rows, size, epoch):
    batches = drawn_by(ALONE, [rows], size, epoch)
    assert {len(batch) for batch in batches} == {min(size, rows)}
    drawn = np.concatenate(batches)
    assert len(set(drawn.tolist())) == len(drawn) > rows - min(size, rows)
    again = drawn_by(ALONE, [rows], size, epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_every_epoch_has_another_order():
    orders = {tuple(np.concatenate(drawn_by(ALONE, [64], 8, epoch))) for epoch in range(4)}
    assert len(orders) == 4


@settings(deadline=None, max_examples=50)
@given(chunks=st.lists(st.integers(1, 60), min_size=2, max_size=4), size=st.integers(1, 30), epoch=st.integers(0, 3))
def test_processes_have_as_many_minibatches_of_one_size_and_none_is_favoured(chunks, size, epoch):
    batches, weights = [], []
    for rank in range(len(chunks)):
        batches.append(drawn_by(Team(rank, len(chunks)), chunks, size * len(chunks), epoch))
        weights.append([share_of_chunks(rank, chunks).weight(len(batch)) for batch in batches[-1]])
    whole = sum(chunks) >= size * len(chunks)
    for together, divisors in zip(zip(*batches, strict=True), zip(*weights, strict=True), strict=True):
        assert [len(batch) for batch in together] == ([size] * len(chunks) if whole else chunks)
        # What the rows of a process weigh is its share of all chunks.
        shares = [len(batch) / divisor for batch, divisor in zip(together, divisors, strict=True)]
        assert shares == pytest.approx([count / sum(chunks) for count in chunks])
    for count, own in zip(chunks, batches, strict=True):
        drawn = np.bincount(np.concatenate(own), minlength=count)
        assert len(drawn) == count
        assert drawn.max() - drawn.min() <= 1


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_advantages_are_those_of_all_processes_together(algorithm):
    rl = RlConfig(algorithm=algorithm, group_size=2)
    episodes = [played(0, [0, 0, 1]), played(1, [0]), played(2, [0, 1]), played(3, [0, 0])]
    whole = experience_of(episodes, rl)
    parts = []
    for rank, own in enumerate((episodes[:2], episodes[2:])):
        numbers = torch.arange(40.0)
        team = Told(rank, 2)
        object.__setattr__(team, "others", [(part, ordered(part)[1] / 2) for part in (episodes[:2], episodes[2:])])
        parts.append(make_experience(*ordered(own), numbers, numbers / 2, rl, team))
    for name in ("advantages", "returns", "values"):
        joined = torch.cat([getattr(part.targets, name) for part in parts])
        assert torch.equal(joined, getattr(whole.targets, name))
    for part in parts:
        assert [each.index for each in part.episodes] == [0, 1, 2, 3]
        assert torch.equal(part.returns, whole.returns)
        assert torch.equal(part.values, whole.values)
    assert np.concatenate([part.rows for part in parts]).tolist() == whole.rows.tolist()


class Told(Team):
    """A process that is told what the others have: episodes, and values."""

    others: list

    def gather(self, value):
        return [(part, values.astype(np.float32)) for part, values in self.others]


def share_of_chunks(rank: int, chunks: list[int]) -> Experience:
    """What the process `rank` has of an experience of so many chunks in each."""
    every = torch.zeros(sum(chunks))
    return Experience(np.arange(chunks[rank]), None, [], every, every)


def drawn_by(team: Team, chunks: list[int], size: int, epoch: int) -> list[np.ndarray]:
    """The minibatches of the first iteration."""
    return list(minibatches(share_of_chunks(team.rank, chunks), RlConfig(minibatch=size), 1, epoch, team))
