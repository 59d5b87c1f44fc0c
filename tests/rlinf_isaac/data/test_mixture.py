from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlinf_isaac.data.lerobot.format import ACTION, FRONT_IMAGE, STATE
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.mixture import Mixture, apportion, open_datasets
from rlinf_isaac.data.norm_stats import compute_norm_stats
from rlinf_isaac.data.subset import Subset
from rlinf_isaac.engines.local.sft.batches import batch_frames

LENGTHS = [[5, 12], [3, 9, 1], [7]]


@pytest.fixture
def roots(tmp_path, random_episodes, write_v21, write_v30):
    """Three datasets, one of them v3.0, with prompts of which one is in two."""
    writers, tasks = (write_v21, write_v30, write_v21), (("Stack",), ("Lift", "Stack"), ("Push",))
    return [
        write(tmp_path / str(number), random_episodes(lengths, seed=number), tasks=task)
        for number, (write, lengths, task) in enumerate(zip(writers, LENGTHS, tasks, strict=True))
    ]


def test_frames_are_those_of_the_datasets_one_after_the_other(roots):
    parts, mixed = [LeRobotDataset(root) for root in roots], open_datasets(roots)
    assert isinstance(mixed, Mixture)
    assert (mixed.num_frames, mixed.num_episodes) == (37, 6)
    assert mixed.episode_starts.tolist() == [0, 5, 17, 20, 29, 30]
    assert np.array_equal(mixed.column(STATE), np.concatenate([part.column(STATE) for part in parts]))
    assert set(mixed.tasks.values()) == {"Stack", "Lift", "Push"}
    for one in (mixed, pickle.loads(pickle.dumps(mixed)), mixed.for_one_of(2)):
        indices = [36, 0, 17, 16, 29, 17]
        places = [(2, 6), (0, 0), (1, 0), (0, 16), (1, 12), (1, 0)]
        assert [one.prompt(index) for index in indices] == [parts[part].prompt(own) for part, own in places]
        images = np.stack([parts[part].image(FRONT_IMAGE, own) for part, own in places])
        assert np.array_equal(one.images(FRONT_IMAGE, indices), images)
        chunks = np.concatenate([parts[part].action_chunks([own], 6) for part, own in places])
        assert np.array_equal(one.action_chunks(indices, 6), chunks)
    for index in (-1, 37):
        with pytest.raises(IndexError, match=r"outside 0\.\.36"):
            mixed.images(FRONT_IMAGE, [0, index])


def test_one_dataset_is_itself_and_a_digest_is_of_all_and_their_weights_in_order(roots):
    assert isinstance(open_datasets(roots[:1]), LeRobotDataset)
    made = [
        open_datasets(roots[:2]),
        open_datasets(roots[1::-1]),
        open_datasets(roots[:2], [1, 2]),
        open_datasets(roots[:2], [2, 1]),
        open_datasets(roots),
    ]
    assert len({each.digest for each in made}) == 5
    assert open_datasets(roots[:2], [1.0, 2]).digest == made[2].digest


@given(total=st.integers(0, 1000), weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5))
def test_parts_are_whole_and_within_one_of_the_share(total, weights):
    parts = apportion(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - total * weight / sum(weights)) < 1


def test_draws_follow_the_weights_and_no_frame_is_drawn_twice_as_often_as_another(roots):
    mixed = open_datasets(roots, [1, 1, 3])
    assert mixed.counts == (8, 7, 22)
    drawn = np.concatenate([mixed.drawn(5, epoch) for epoch in range(20)])
    often = np.split(np.bincount(drawn, minlength=37), [17, 30])
    assert [int(each.sum()) for each in often] == [20 * count for count in mixed.counts]
    assert all(np.ptp(each) <= 1 for each in often)
    assert np.array_equal(mixed.drawn(5, 3), mixed.drawn(5, 3))
    assert not np.array_equal(mixed.drawn(5, 3), mixed.drawn(6, 3))
    assert open_datasets(roots).drawn(5, 3).tolist() == list(range(37))


def test_what_is_left_of_a_mixture_is_drawn_by_its_weights(roots):
    mixed = open_datasets(roots, [1, 1, 3])
    left = Subset(mixed, [0, 2, 3, 5])  # 5 of 17 frames, 12 of 13, 7 of 7
    drawn = np.concatenate([left.drawn(5, epoch) for epoch in range(20)])
    often = np.split(np.bincount(drawn, minlength=24), [5, 17])
    assert [int(each.sum()) for each in often] == [20 * count for count in apportion(24, [1, 1, 3])]
    assert all(np.ptp(each) <= 1 for each in often)
    assert Subset(open_datasets(roots), [0, 2]).drawn(5, 3).tolist() == list(range(8))
    batch = np.concatenate([batch_frames(left, 6, 0, step) for step in range(4)])
    assert [int(((batch >= first) & (batch < end)).sum()) for first, end in ((0, 5), (5, 17), (17, 24))] == [5, 5, 14]


@pytest.mark.parametrize("delta", ["none", "1,-1"])
def test_norm_stats_count_a_frame_as_often_as_it_is_drawn(roots, delta):
    """Against the same rows, written out as often."""
    mixed = open_datasets(roots[:2], [13, 34])  # 8 and 22 of 30 draws: nearly 17 : 13 x 13/17 : 34/13
    found = compute_norm_stats(mixed, 4, batch_size=1, delta_actions=delta)
    chunks, states = mixed.action_chunks(np.arange(30), 4).astype(np.float64), mixed.column(STATE).astype(np.float64)
    if delta != "none":
        chunks[..., 0] -= states[:, None, 0]
    weights = np.repeat(np.array(mixed.counts) / mixed.sizes, mixed.sizes)
    for rows, stats, counts in (
        (states, found.state, weights),
        (chunks.reshape(-1, 2), found.actions, np.repeat(weights, 4)),
    ):
        mean = np.average(rows, axis=0, weights=counts)
        assert np.allclose(stats.mean, mean, atol=1e-4)
        assert np.allclose(stats.std, np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=counts)), atol=1e-4)
        for column, low in zip(rows.T, stats.q01, strict=True):
            order = np.argsort(column)
            reached = np.cumsum(counts[order]) / counts.sum()
            assert low == pytest.approx(column[order][np.searchsorted(reached, 0.01)], abs=1e-6)


def test_norm_stats_without_weights_are_those_of_one_dataset_of_all_episodes(
    roots, tmp_path, random_episodes, write_v21
):
    episodes = [episode for number, lengths in enumerate(LENGTHS) for episode in random_episodes(lengths, seed=number)]
    whole = LeRobotDataset(write_v21(tmp_path / "whole", episodes))
    assert np.array_equal(whole.column(ACTION), open_datasets(roots).column(ACTION))
    assert compute_norm_stats(whole, 4, batch_size=8) == compute_norm_stats(open_datasets(roots), 4, batch_size=8)
