from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpi_semantics import batches, running_stats

from rlinf_isaac.config import load_config
from rlinf_isaac.data.lerobot.format import ACTION, STATE, vector_feature
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import KEYS, FeatureStats, NormStats, compute_norm_stats, settings_of
from rlinf_isaac.data.norm_stats.compute import chunk_weights
from rlinf_isaac.data.norm_stats.differences import sample_rows
from rlinf_isaac.ground.errors import InvalidJob, NormStatsError
from rlinf_isaac.tasks.adapters import ADAPTERS

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def all_rows(dataset: LeRobotDataset, horizon: int, batch_size: int, delta: str) -> tuple[np.ndarray, np.ndarray]:
    """Every row that OpenPI's loop sees, in float64: the definition of what the statistics are of."""
    states, actions = zip(*batches(dataset, horizon, batch_size, delta), strict=True)
    return tuple(np.concatenate(x).reshape(-1, x[0].shape[-1]).astype(np.float64) for x in (states, actions))


def assert_are_the_samples(stats: FeatureStats, rows: np.ndarray) -> None:
    quantiles = np.quantile(rows, [0.01, 0.99], axis=0, method="inverted_cdf")
    assert np.allclose(stats.mean, rows.mean(0), rtol=0, atol=1e-8)
    assert np.allclose(stats.std, rows.std(0), rtol=0, atol=1e-8)
    assert np.allclose([stats.q01, stats.q99], quantiles, rtol=0, atol=1e-8)


class Differences(NamedTuple):
    """The largest ones: of means and variances, relative to max|x| and its square; of quantiles, in bin widths."""

    mean: float = 0.0
    variance: float = 0.0
    bins: float = 0.0


def assert_within_openpis_error(ours: NormStats, rows: tuple[np.ndarray, np.ndarray], theirs: dict) -> Differences:
    """The tolerance that compute.py states; returns what was found."""
    worst = Differences()
    for key, sample in zip(KEYS, rows, strict=True):
        stats, reference = getattr(ours, key), theirs[key]
        largest = np.abs(sample).max(0)
        mean = np.abs(stats.mean - reference.mean) / largest
        variance = np.abs(stats.std**2 - reference.std.astype(np.float64) ** 2) / largest**2
        assert mean.max() <= 1e-5
        assert variance.max() <= 1e-5
        bins = 0.0
        for exact, q in ((stats.q01, 0.01), (stats.q99, 0.99)):
            shifted = [
                np.quantile(x, min(1, q + lost), method="inverted_cdf")
                for x, lost in zip(sample.T, reference.lost, strict=True)
            ]
            rounding = 1e-6 * largest  # of float32 edges, and the 1e-10 by which OpenPI widens its first bins
            width, found = reference.bin_width, reference.quantile(q)
            assert (found <= np.array(shifted) + rounding + 1e-9).all()
            assert (found >= exact - (reference.growths + 1) * width - rounding - 1e-9).all()
            moved = (width > 0) & (reference.lost == 0)
            bins = max([bins, *((np.abs(exact - found) - rounding)[moved] / width[moved])])
        worst = Differences(*map(max, worst, (mean.max(), variance.max(), bins)))
    return worst


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 40), st.data())
def test_chunk_weights_count_the_slots_of_every_chunk(lengths, horizon, data):
    frames = data.draw(st.integers(1, sum(lengths)))
    slots = np.zeros(sum(lengths))
    last = np.repeat(np.cumsum(lengths) - 1, lengths)
    for start in range(frames):
        np.add.at(slots, np.minimum(start + np.arange(horizon), last[start]), 1)
    assert np.array_equal(chunk_weights(np.array(lengths), horizon, frames), slots)


@pytest.mark.parametrize("delta", ["none", "1,-1", "2", "-1,1"])
@pytest.mark.parametrize("batch_size", [1, 32, 47, 298])
@pytest.mark.parametrize("horizon", [1, 10, 200])
def test_equal_to_the_sample_of_openpis_rows(dataset, horizon, batch_size, delta):
    stats = compute_norm_stats(dataset, horizon, batch_size=batch_size, delta_actions=delta)
    states, actions = all_rows(dataset, horizon, batch_size, delta)
    assert_are_the_samples(stats.state, states)
    assert_are_the_samples(stats.actions, actions)


@pytest.mark.parametrize("delta", ["none", "1,-1"])
@pytest.mark.parametrize("batch_size", [1, 32, 298])
def test_agrees_with_openpis_estimator(dataset, batch_size, delta):
    ours = compute_norm_stats(dataset, 10, batch_size=batch_size, delta_actions=delta)
    rows = all_rows(dataset, 10, batch_size, delta)
    assert_within_openpis_error(ours, rows, running_stats(dataset, 10, batch_size, delta))


def test_agrees_with_openpis_estimator_on_demonstrations(small_dataset):
    dataset = LeRobotDataset(small_dataset)
    ours = compute_norm_stats(dataset, 16)
    assert_within_openpis_error(ours, all_rows(dataset, 16, 32, "none"), running_stats(dataset, 16, 32))


def test_agrees_with_openpi_where_its_histogram_loses_rows(tmp_path, write_v21):
    """A dim that rests at 0, then rises within the first batch: the case that the docstring puts outside the bound."""
    rise = np.concatenate([np.zeros(31), np.linspace(0.1, 1, 97)]).astype(np.float32)
    episode = {STATE: np.stack([rise, -rise], 1), ACTION: np.stack([rise, rise - 1], 1)}
    features = {name: vector_feature(["a", "b"]) for name in (STATE, ACTION)}
    dataset = LeRobotDataset(write_v21(tmp_path / "data", [episode], features=features))
    theirs = running_stats(dataset, 1, 32)
    assert theirs["state"].lost[0] == pytest.approx(31 / 128), "all the zeros"
    ours = compute_norm_stats(dataset, 1)
    assert theirs["state"].quantile(0.01)[0] > 0.09, "the exact one is 0"
    assert ours.state.q01[0] == 0
    assert_within_openpis_error(ours, all_rows(dataset, 1, 32, "none"), theirs)


@pytest.mark.slow
def test_agrees_with_openpis_estimator_on_a_million_rows(tmp_path, write_v21):
    """Every kind of dim that a robot has: smooth, two-valued, skewed, far from zero, at rest."""
    delta = "6,-1"
    rng = np.random.default_rng(0)
    features = {STATE: vector_feature([*"abcdefgh"]), ACTION: vector_feature([*"abcdefg"])}
    episodes = []
    for _ in range(2000):
        state, action = rng.normal(size=(500, 8)).cumsum(0) / 20, rng.normal(size=(500, 7))
        state[:, 0] += 100
        state[:, 7] = 0.04
        action[:, 1] = np.exp(action[:, 1])
        action[:, 6] = np.sign(action[:, 6])
        episodes.append({STATE: state.astype(np.float32), ACTION: action.astype(np.float32)})
    dataset = LeRobotDataset(write_v21(tmp_path / "data", episodes, features=features))
    assert dataset.num_frames == 1_000_000
    horizon = 5  # the sample that our values are compared with is held in memory
    ours = compute_norm_stats(dataset, horizon, delta_actions=delta)
    rows = all_rows(dataset, horizon, 32, delta)
    worst = assert_within_openpis_error(ours, rows, running_stats(dataset, horizon, 32, delta))
    print(f"\n  delta {delta}: {worst}")


@pytest.mark.parity
def test_the_restated_estimator_is_openpis(dataset):
    """In the interpreter with the extra openpi, whose numpy is OpenPI's."""
    normalize = pytest.importorskip("openpi.shared.normalize")
    theirs = running_stats(dataset, 10, 32, estimator=normalize.RunningStats)
    restated = running_stats(dataset, 10, 32)
    for key in KEYS:
        real, ours = theirs[key].get_statistics(), restated[key]
        for name, values in (("mean", ours.mean), ("std", ours.std), ("q01", ours.quantile(0.01))):
            assert np.array_equal(getattr(real, name), values), name
        assert np.array_equal(real.q99, ours.quantile(0.99))


def test_what_a_delta_is(tmp_path, write_v21):
    """By hand: horizon 2, episodes of 2 and 1 frames; the state only moves the relative dim."""
    features = {STATE: vector_feature(["x"]), ACTION: vector_feature(["dx", "gripper"])}
    states = np.array([[1.0], [2.0], [5.0]], np.float32)
    actions = np.array([[10.0, 7.0], [20.0, 8.0], [50.0, 9.0]], np.float32)
    episodes = [{STATE: states[part], ACTION: actions[part]} for part in (slice(0, 2), slice(2, 3))]
    dataset = LeRobotDataset(write_v21(tmp_path / "data", episodes, features=features))
    stats = compute_norm_stats(dataset, 2, batch_size=1, delta_actions="1")
    deltas = [10 - 1, 20 - 1, 20 - 2, 20 - 2, 50 - 5, 50 - 5]
    assert stats.actions.mean.tolist() == pytest.approx([np.mean(deltas), np.mean([7, 8, 8, 8, 9, 9])], abs=1e-7)
    assert (stats.actions.q01[0], stats.actions.q99[0]) == (9, 45)


@pytest.mark.parametrize("delta", ["none", "6,-1,6,-1"])
def test_adapted_rows_are_those_of_an_adapted_dataset(tmp_path, write_v21, delta):
    random, adapter = np.random.default_rng(0), ADAPTERS["aloha"]
    features = {name: vector_feature([f"d{dim}" for dim in range(14)]) for name in (STATE, ACTION)}
    episodes = [{name: random.uniform(0, 1, (9, 14)).astype(np.float32) for name in features} for _ in range(2)]
    adapted = [{STATE: adapter.state(each[STATE]), ACTION: adapter.actions(each[ACTION])} for each in episodes]
    ours = LeRobotDataset(write_v21(tmp_path / "robot", episodes, features=features))
    theirs = LeRobotDataset(write_v21(tmp_path / "model", adapted, features=features))
    settings = {"batch_size": 1, "delta_actions": delta}
    stats = compute_norm_stats(ours, 4, adapt="aloha", **settings)
    assert stats == compute_norm_stats(theirs, 4, **settings)
    assert stats != compute_norm_stats(ours, 4, **settings)
    rows = sample_rows(ours, {"action_horizon": 4, "adapt": "aloha", **settings})
    for key in KEYS:
        assert np.allclose(getattr(stats, key).mean, rows[key].mean(0, np.float64), atol=1e-6)


def test_same_for_both_versions(dataset, tmp_path, write_v30):
    columns = dataset.read_columns([STATE, ACTION])
    cuts = dataset.episode_starts[1:]
    parts = {name: np.split(values, cuts) for name, values in columns.items()}
    episodes = [{name: parts[name][episode] for name in parts} for episode in range(dataset.num_episodes)]
    features = {name: dataset.features[name] for name in parts}
    v30 = LeRobotDataset(write_v30(tmp_path / "v30", episodes, features=features))
    assert compute_norm_stats(v30, 10) == compute_norm_stats(dataset, 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values", [[0.0] * 9, [0.7] * 9, [1e-30] * 9, [-1e8] * 9, [0.0] * 8 + [1e12], [-0.0] * 9])
def test_constant_and_extreme_columns(tmp_path, write_v21, values, dtype):
    features = {name: vector_feature(["a", "b"], dtype) for name in (STATE, ACTION)}
    column = np.array([values, values], dtype).T
    root = write_v21(tmp_path / "data", [{STATE: column, ACTION: column}], features=features)
    stats = compute_norm_stats(LeRobotDataset(root), 3, batch_size=1)
    constant = len(set(values)) == 1
    assert (stats.state.std == 0).all() == constant
    assert np.allclose(stats.state.mean, column.astype(np.float64).mean(0), rtol=1e-8)
    assert np.allclose(stats.state.q01, column[0], rtol=1e-8)
    assert np.allclose(stats.actions.q99, column[-1], rtol=1e-8)
    assert "-0.0" not in stats.to_json()


def test_settings_are_those_of_the_job():
    config = load_config("tiny", ["norm_stats.batch_size=4", "policy.delta_actions='6,-1'"])
    expected = {"action_horizon": config.model.action_horizon, "batch_size": 4, "delta_actions": "6,-1"}
    assert settings_of(config) == expected


def test_wrong_arguments(dataset):
    with pytest.raises(NormStatsError, match="action_horizon must be at least 1"):
        compute_norm_stats(dataset, 0)
    for batch_size in (0, 299):
        with pytest.raises(NormStatsError, match=rf"(?s)298 frames.*batch of {batch_size}\b.*1 \(every") as error:
            compute_norm_stats(dataset, 10, batch_size=batch_size)
        assert error.value.problems[0].code == "norm-stats-batch"
    with pytest.raises(InvalidJob, match="names 3 dims; the state has 3, the action 2") as invalid:
        compute_norm_stats(dataset, 10, delta_actions="2,-1")
    assert invalid.value.problems[0].code == "bad-delta-mask"


def test_values_that_are_not_finite_are_named(dataset):
    path = dataset.root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    values = table[ACTION].to_pylist()
    values[3][1] = float("inf")
    column = table.column_names.index(ACTION)
    pq.write_table(table.set_column(column, ACTION, pa.array(values, table[ACTION].type)), path)
    with pytest.raises(NormStatsError, match="action: frame 43, entry 1 is inf") as error:
        compute_norm_stats(LeRobotDataset(dataset.root), 10)
    assert error.value.problems[0].code == "dataset-not-finite"
