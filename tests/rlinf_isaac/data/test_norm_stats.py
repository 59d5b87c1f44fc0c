from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.data import norm_stats
from rlinf_isaac.data.lerobot_format import ACTION, STATE, vector_feature
from rlinf_isaac.data.lerobot_reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import FeatureStats, NormStats, chunk_weights, compute_norm_stats, from_json, load
from rlinf_isaac.digest import file_digest
from rlinf_isaac.errors import NormStatsError

FEATURES = {STATE: vector_feature(["x", "y"]), ACTION: vector_feature(["dx", "gripper"])}
LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=6)


class HistogramStats:
    """OpenPI's estimator (``shared/normalize.py: RunningStats``) restated: running means, and quantiles read as left
    edges off a histogram that is re-binned whenever a batch widens the range."""

    bins = 5000

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean, self.mean_of_squares = np.zeros(dim), np.zeros(dim)
        self.low, self.high = np.full(dim, np.inf), np.full(dim, -np.inf)
        self.histograms, self.edges = [np.zeros(self.bins)] * dim, [np.zeros(self.bins + 1)] * dim

    def update(self, batch: np.ndarray) -> None:
        batch = batch.reshape(-1, batch.shape[-1]).astype(np.float64)
        low, high = np.minimum(self.low, batch.min(0)), np.maximum(self.high, batch.max(0))
        if (low < self.low).any() or (high > self.high).any():
            self.low, self.high = low, high
            for entry in range(batch.shape[1]):
                edges = np.linspace(low[entry] - 1e-10, high[entry] + 1e-10, self.bins + 1)
                if self.count:
                    counts = self.histograms[entry]
                    self.histograms[entry] = np.histogram(self.edges[entry][:-1], edges, weights=counts)[0]
                self.edges[entry] = edges
        self.count += len(batch)
        share = len(batch) / self.count
        self.mean += (batch.mean(0) - self.mean) * share
        self.mean_of_squares += ((batch**2).mean(0) - self.mean_of_squares) * share
        for entry, edges in enumerate(self.edges):
            self.histograms[entry] = self.histograms[entry] + np.histogram(batch[:, entry], edges)[0]

    def quantile(self, q: float) -> np.ndarray:
        found = [np.searchsorted(np.cumsum(counts), q * self.count) for counts in self.histograms]
        return np.array([edges[bin] for edges, bin in zip(self.edges, found, strict=True)])


def openpi_stats(dataset: LeRobotDataset, horizon: int, batch_size: int) -> dict[str, HistogramStats]:
    """The loop of OpenPI's ``compute_norm_stats.py``: batches in order, the partial last one dropped."""
    stats = {"state": HistogramStats(2), "actions": HistogramStats(2)}
    for start in range(0, dataset.num_frames - batch_size + 1, batch_size):
        indices = np.arange(start, start + batch_size)
        stats["state"].update(dataset.column(STATE)[indices])
        stats["actions"].update(dataset.action_chunks(indices, horizon))
    return stats


@pytest.fixture
def dataset(tmp_path, random_episodes, write_v21) -> LeRobotDataset:
    episodes = random_episodes([40, 7, 160, 1, 90], features=FEATURES)
    for episode in episodes:
        episode[ACTION][:, 1] = np.sign(episode[ACTION][:, 1])  # a gripper command: two values only
    return LeRobotDataset(write_v21(tmp_path / "data", episodes, features=FEATURES))


def expanded(dataset: LeRobotDataset, horizon: int, frames: int) -> np.ndarray:
    """Every slot of every chunk as a row, the definition that the weights stand for."""
    return dataset.action_chunks(range(frames), horizon).reshape(frames * horizon, -1).astype(np.float64)


def assert_equals_sample(stats: FeatureStats, rows: np.ndarray) -> None:
    quantiles = np.quantile(rows, [0.01, 0.99], axis=0, method="inverted_cdf")
    assert np.allclose(stats.mean, rows.mean(0), rtol=0, atol=1e-8)
    assert np.allclose(stats.std, rows.std(0), rtol=0, atol=1e-8)
    assert np.allclose([stats.q01, stats.q99], quantiles, rtol=0, atol=1e-8)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 40), st.data())
def test_chunk_weights_count_the_slots_of_every_chunk(lengths, horizon, data):
    frames = data.draw(st.integers(1, sum(lengths)))
    slots = np.zeros(sum(lengths))
    last = np.repeat(np.cumsum(lengths) - 1, lengths)
    for start in range(frames):
        np.add.at(slots, np.minimum(start + np.arange(horizon), last[start]), 1)
    assert np.array_equal(chunk_weights(np.array(lengths), horizon, frames), slots)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(0, 9)), min_size=1, max_size=50),
    st.data(),
)
def test_weighted_quantiles_are_those_of_the_repeated_values(pairs, data):
    """With outliers, repetitions and zero weights, which is where counting in bins could go wrong."""
    values, weights = np.array(pairs).T
    if not weights.any():
        weights[data.draw(st.integers(0, len(weights) - 1))] = 1
    repeated = np.repeat(values, weights.astype(int))
    found = norm_stats.weighted_quantiles(values, weights, norm_stats.QUANTILES)
    assert found == np.quantile(repeated, norm_stats.QUANTILES, method="inverted_cdf").tolist()


@pytest.mark.parametrize("horizon", [1, 10, 50, 200])
@pytest.mark.parametrize("frames", [None, 1, 40, 206, 298])
def test_equal_to_the_expanded_sample_of_any_leading_frames(dataset, horizon, frames):
    stats = compute_norm_stats(dataset, horizon, num_frames=frames)
    frames = frames or dataset.num_frames
    assert_equals_sample(stats.actions, expanded(dataset, horizon, frames))
    assert_equals_sample(stats.state, dataset.column(STATE)[:frames].astype(np.float64))


@pytest.mark.parametrize("batch_size", [1, 32, 298])
def test_agrees_with_openpis_estimator(dataset, batch_size):
    """Means to 1e-6; quantiles within three bins of OpenPI's histogram, whose left edges and re-binning move them."""
    frames = dataset.num_frames // batch_size * batch_size
    ours, theirs = compute_norm_stats(dataset, 10, num_frames=frames), openpi_stats(dataset, 10, batch_size)
    for key in norm_stats.KEYS:
        stats, reference = getattr(ours, key), theirs[key]
        variance = reference.mean_of_squares - reference.mean**2
        assert np.allclose(stats.mean, reference.mean, rtol=0, atol=1e-6)
        assert np.allclose(stats.std, np.sqrt(np.maximum(0, variance)), rtol=0, atol=1e-6)
        bin_width = (reference.high - reference.low) / reference.bins
        for quantile, q in ((stats.q01, 0.01), (stats.q99, 0.99)):
            assert (np.abs(quantile - reference.quantile(q)) <= 3 * bin_width).all()


def test_same_for_both_versions(dataset, tmp_path, random_episodes, write_v30):
    columns = dataset.read_columns([STATE, ACTION])
    cuts = dataset.episode_starts[1:]
    parts = {name: np.split(values, cuts) for name, values in columns.items()}
    episodes = [{name: parts[name][episode] for name in parts} for episode in range(dataset.num_episodes)]
    v30 = LeRobotDataset(write_v30(tmp_path / "v30", episodes, features=FEATURES))
    assert compute_norm_stats(v30, 10) == compute_norm_stats(dataset, 10)


@pytest.mark.parametrize("values", [[0.0] * 9, [0.7] * 9, [1e-30] * 9, [-1e8] * 9, [0.0] * 8 + [1e12]])
def test_constant_and_extreme_columns(tmp_path, write_v21, values):
    column = np.array([values, values], np.float32).T
    root = write_v21(tmp_path / "data", [{STATE: column, ACTION: column}], features=FEATURES)
    stats = compute_norm_stats(LeRobotDataset(root), 3)
    constant = len(set(values)) == 1
    assert (stats.state.std == 0).all() == constant
    assert np.allclose(stats.state.mean, column.astype(np.float64).mean(0), rtol=1e-8)
    assert np.allclose(stats.state.q01, column[0], rtol=1e-8)
    assert np.allclose(stats.actions.q99, column[-1], rtol=1e-8)


def test_wrong_arguments_and_data(dataset):
    with pytest.raises(NormStatsError, match="action_horizon must be at least 1"):
        compute_norm_stats(dataset, 0)
    for frames in (0, 299):
        with pytest.raises(NormStatsError, match=r"not within 1\.\.298"):
            compute_norm_stats(dataset, 10, num_frames=frames)
    path = dataset.root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    values = table[ACTION].to_pylist()
    values[3][1] = float("inf")
    column = table.column_names.index(ACTION)
    pq.write_table(table.set_column(column, ACTION, pa.array(values, table[ACTION].type)), path)
    with pytest.raises(NormStatsError, match="action: frame 43, entry 1 is inf"):
        compute_norm_stats(LeRobotDataset(dataset.root), 10)


class TestFile:
    @pytest.fixture
    def stats(self, dataset) -> NormStats:
        return compute_norm_stats(dataset, 10)

    def test_schema_is_openpis(self, stats):
        content = json.loads(stats.to_json())
        assert list(content) == ["norm_stats"]
        assert list(content["norm_stats"]) == ["state", "actions"]
        assert list(content["norm_stats"]["state"]) == ["mean", "std", "q01", "q99"]
        assert content["norm_stats"]["actions"]["mean"] == stats.actions.mean.tolist()
        assert stats.to_json().startswith('{\n  "norm_stats": {\n    "state": {\n      "mean": [\n        ')

    def test_save_and_load(self, stats, tmp_path):
        path = tmp_path / "a" / "norm_stats.json"
        stats.save(path)
        assert load(path) == stats
        assert file_digest(path) == stats.digest == norm_stats.digest(path.read_bytes())
        assert load(path).actions.dim == 2

    def test_computing_again_gives_the_same_bytes(self, stats, dataset):
        again = compute_norm_stats(LeRobotDataset(dataset.root), 10)
        assert again.to_json() == stats.to_json()
        assert compute_norm_stats(dataset, 11).digest != stats.digest

    def test_quantiles_may_be_absent(self, stats):
        content = json.loads(stats.to_json())
        content["norm_stats"]["state"] |= {"q01": None, "q99": None}
        del content["norm_stats"]["actions"]["q01"]
        read = from_json(json.dumps(content))
        assert read.state.q01 is None
        assert read.actions.q01 is None
        assert from_json(read.to_json()) == read

    @pytest.mark.parametrize(
        ("renames", "named"),
        [
            ({"state": "observation.state", "actions": "action"}, "action, observation.state"),
            ({"state": "observation/state"}, "observation/state"),
            ({"actions": "action"}, "the keys action,"),
        ],
    )
    def test_lerobots_keys_are_refused(self, stats, renames, named):
        content = json.loads(stats.to_json())["norm_stats"]
        renamed = {renames.get(key, key): value for key, value in content.items()}
        with pytest.raises(NormStatsError, match=f"(?s){named}.*silently not be normalised.*norm_stats verb"):
            from_json(json.dumps({"norm_stats": renamed}))

    @pytest.mark.parametrize("key", ["timestamp", "frame_index", "episode_index", "index", "task_index"])
    def test_metadata_keys_are_refused(self, stats, key):
        content = json.loads(stats.to_json())
        content["norm_stats"][key] = content["norm_stats"]["state"]
        with pytest.raises(NormStatsError, match=f"has the keys {key}, which"):
            from_json(json.dumps(content))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda stats: stats.pop("actions"), "lacks the key actions"),
            (lambda stats: stats["state"].pop("std"), "state must be an object with mean, std"),
            (lambda stats: stats.update(state=[1.0]), "state must be an object"),
            (lambda stats: stats["state"].update(mean=None), "mean and std must not be null"),
            (lambda stats: stats["state"].update(mean=["a", "b"]), r"state\.mean is not a list of numbers"),
            (lambda stats: stats["state"].update(mean=[[1.0], [2.0]]), r"state\.mean is not a non-empty list"),
            (lambda stats: stats["state"].update(mean=[]), r"state\.mean is not a non-empty list"),
            (lambda stats: stats["state"].update(mean=[float("nan")] * 2), "finite numbers"),
            (lambda stats: stats["actions"].update(std=[1.0]), "actions: mean, std, q01 and q99 differ in length"),
            (lambda stats: stats["actions"].update(std=[1.0, -1.0]), "negative std"),
            (lambda stats: stats["actions"].update(q99=[-9.0, 1.0]), "q99 < q01"),
        ],
    )
    def test_broken_content_is_named(self, stats, tmp_path, change, message):
        content = json.loads(stats.to_json())
        change(content["norm_stats"])
        path = tmp_path / "norm_stats.json"
        path.write_text(json.dumps(content))
        with pytest.raises(NormStatsError, match=message) as error:
            load(path)
        assert str(path) in str(error.value)

    def test_other_files(self, tmp_path):
        path = tmp_path / "norm_stats.json"
        with pytest.raises(NormStatsError, match="No such file"):
            load(path)
        for text, message in (("{", "not JSON"), ("[]", "no 'norm_stats'"), ('{"action": {"mean": []}}', "stats.json")):
            path.write_text(text)
            with pytest.raises(NormStatsError, match=message):
                load(path)

    @settings(deadline=None)
    @given(st.binary())
    def test_any_bytes_load_or_raise_norm_stats_error(self, data):
        with pytest.raises(NormStatsError):
            from_json(data)

    def test_is_written_whole(self, stats, tmp_path, monkeypatch):
        path = tmp_path / "norm_stats.json"
        stats.save(path)
        before = path.read_bytes()

        def disk_full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", disk_full)
        with pytest.raises(OSError, match="No space"):
            NormStats(state=stats.actions, actions=stats.state).save(path)
        assert path.read_bytes() == before
