from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.data.lerobot import reader as lerobot_reader
from rlinf_isaac.data.lerobot.format import ACTION, FRONT_IMAGE, STATE, WRIST_IMAGE
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.lerobot.resolve import resolve_dataset
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.media.png import encode_png


def concatenated(episodes, name):
    return np.concatenate([episode[name] for episode in episodes])


def first_data_file(root: Path) -> Path:
    return min((root / "data").rglob("*.parquet"))


def rewrite(path: Path, change) -> None:
    """Replace a parquet file by `change(table)`."""
    pq.write_table(change(pq.read_table(path)), path)


def test_both_versions_give_the_same_frames(dataset_root, version, random_episodes):
    dataset, episodes = LeRobotDataset(dataset_root), random_episodes([5, 12, 1])
    assert dataset.version == version
    assert (dataset.num_frames, dataset.num_episodes, dataset.fps) == (18, 3, 20)
    assert dataset.episode_lengths.tolist() == [5, 12, 1]
    assert dataset.episode_starts.tolist() == [0, 5, 17]
    for name in (STATE, ACTION):
        assert np.array_equal(dataset.column(name), concatenated(episodes, name))
    assert dataset.column("index")[:, 0].tolist() == list(range(18))
    for name in (FRONT_IMAGE, WRIST_IMAGE):
        indices = [17, 0, 9, 9, 4]
        assert np.array_equal(dataset.images(name, indices), concatenated(episodes, name)[indices])
    assert np.array_equal(dataset.image(FRONT_IMAGE, 16), concatenated(episodes, FRONT_IMAGE)[16])
    assert dataset.prompt(4) == dataset.prompt(17) == "Stack"
    assert dataset.prompt(5) == "Un\u2028stack"
    assert dataset.episode_of([0, 4, 5, 16, 17]).tolist() == [0, 0, 1, 1, 2]


def test_opens_a_location_and_names(v21_root, monkeypatch):
    location = resolve_dataset(v21_root)
    monkeypatch.chdir(v21_root.parent)
    for name in (location, v21_root, str(v21_root), "data"):
        assert LeRobotDataset(name).root == v21_root


@settings(deadline=None, max_examples=20)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), horizon=st.integers(1, 12), per_file=st.integers(1, 4)
)
def test_action_chunks_repeat_the_last_action_of_the_episode(lengths, horizon, per_file, random_episodes, write_v30):
    """Against the definition: pad each episode with its last action, then cut a window at each frame."""
    features = {name: feature for name, feature in _numeric_features().items()}
    episodes = random_episodes(lengths, features=features)
    expected = []
    for episode in episodes:
        action = episode[ACTION]
        padded = np.concatenate([action, np.repeat(action[-1:], horizon, axis=0)])
        expected += [padded[start : start + horizon] for start in range(len(action))]
    with tempfile.TemporaryDirectory() as directory:
        root = write_v30(Path(directory) / "data", episodes, features=features, episodes_per_file=per_file)
        dataset = LeRobotDataset(root)
        indices = np.arange(dataset.num_frames)[::-1]
        assert np.array_equal(dataset.action_chunks(indices, horizon), np.stack(expected)[indices])


def _numeric_features():
    from rlinf_isaac.data.lerobot.format import vector_feature

    return {STATE: vector_feature(["x"]), ACTION: vector_feature(["dx", "dy"])}


def test_columns_can_be_read_once_or_kept(v21_root):
    dataset = LeRobotDataset(v21_root)
    columns = dataset.read_columns([STATE, ACTION])
    assert columns[STATE].shape == (18, 3)
    assert dataset.column(STATE) is dataset.column(STATE)
    with pytest.raises(ValueError, match="read-only"):
        dataset.column(STATE)[0] = 0


def test_wrong_names_and_indices(v21_root):
    dataset = LeRobotDataset(v21_root)
    with pytest.raises(DatasetError, match="no feature 'state'; it has action"):
        dataset.column("state")
    with pytest.raises(DatasetError, match=r"use image\(\)"):
        dataset.column(FRONT_IMAGE)
    with pytest.raises(DatasetError, match=r"use column\(\)"):
        dataset.image(STATE, 0)
    for index in (-1, 18):
        with pytest.raises(IndexError, match=r"outside 0\.\.17"):
            dataset.image(FRONT_IMAGE, index)
        with pytest.raises(IndexError, match=r"outside 0\.\.17"):
            dataset.action_chunks([0, index], 3)


def test_cache_of_compressed_images_keeps_to_its_budget(tmp_path, random_episodes, write_v21):
    root = write_v21(tmp_path / "data", episodes := random_episodes([4] * 10))
    everything = LeRobotDataset(root)
    everything.images(FRONT_IMAGE, range(40))
    per_episode = everything._image_bytes / 10
    small = LeRobotDataset(root, image_cache_bytes=int(3.5 * per_episode))
    for index in np.random.default_rng(0).permutation(40):
        assert np.array_equal(small.image(FRONT_IMAGE, index), concatenated(episodes, FRONT_IMAGE)[index])
        assert small._image_bytes <= 3.5 * per_episode
        assert small._image_bytes == sum(array.nbytes for array in small._images.values())
    assert len(small._images) == 3


def test_images_that_fit_are_decoded_once(v21_root, monkeypatch):
    dataset = LeRobotDataset(v21_root)
    first = dataset.images(FRONT_IMAGE, [3, 0, 3])
    monkeypatch.setattr(lerobot_reader, "decode_image", lambda data: pytest.fail("decoded again"))
    assert np.array_equal(dataset.images(FRONT_IMAGE, [0, 3, 3]), first[[1, 0, 2]])
    first[:] = 0  # what was given away is the caller's
    assert dataset.images(FRONT_IMAGE, [3]).any()
    assert not dataset.__getstate__()["_decoded"]


def test_images_without_room_are_decoded_once_each_time(v21_root, monkeypatch):
    dataset = LeRobotDataset(v21_root, image_cache_bytes=1)
    dataset.images(FRONT_IMAGE, [0])
    decode, decoded = lerobot_reader.decode_image, []
    monkeypatch.setattr(lerobot_reader, "decode_image", lambda data: decoded.append(data) or decode(data))
    dataset.images(FRONT_IMAGE, [3, 0])
    assert len(decoded) == 2


def test_can_be_sent_to_worker_processes(v21_root):
    dataset = LeRobotDataset(v21_root)
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy.image(FRONT_IMAGE, 3), dataset.image(FRONT_IMAGE, 3))


class TestDigest:
    def test_same_for_a_copy_with_other_times_links_and_neighbours(self, dataset_root, tmp_path):
        digest = LeRobotDataset(dataset_root).digest
        shutil.copytree(dataset_root, tmp_path / "copy")
        for path in (tmp_path / "copy").rglob("*"):
            os.utime(path, (1, 1))
        (tmp_path / "copy" / "norm_stats.json").write_text("{}")
        (tmp_path / "copy" / ".cache").mkdir()
        assert LeRobotDataset(tmp_path / "copy").digest == digest
        linked = tmp_path / "linked"  # as the hub's cache lays it out: links to files, and here also to directories
        (linked / "meta").mkdir(parents=True)
        (linked / "data").symlink_to(dataset_root / "data")
        for path in (dataset_root / "meta").iterdir():
            (linked / "meta" / path.name).symlink_to(path)
        assert LeRobotDataset(linked).digest == digest

    def test_changes_with_meta_and_data(self, v21_root):
        digests = {LeRobotDataset(v21_root).digest}
        for path in (v21_root / "meta/tasks.jsonl", v21_root / "meta/provenance.json"):
            path.write_text(path.read_text().replace("Stack", "Lift").replace("3", "4"))
            digests.add(LeRobotDataset(v21_root).digest)
        rewrite(first_data_file(v21_root), lambda table: table.set_column(4, "timestamp", table["timestamp"]))
        digests.add(LeRobotDataset(v21_root).digest)
        assert len(digests) == 4


class TestDamage:
    def test_missing_data_file(self, dataset_root):
        first_data_file(dataset_root).unlink()
        with pytest.raises(DatasetError, match="parquet is missing"):
            LeRobotDataset(dataset_root)

    @pytest.mark.parametrize("keep", [0, 3, 0.5, 0.99, -1])
    def test_truncated_data_file(self, dataset_root, keep):
        path = first_data_file(dataset_root)
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else keep])
        with pytest.raises(DatasetError, match="not readable parquet"):
            LeRobotDataset(dataset_root)

    def test_frames_cut_off(self, dataset_root):
        rewrite(first_data_file(dataset_root), lambda table: table.slice(0, 4))
        with pytest.raises(DatasetError, match="holds 4 frames, but meta/ says"):
            LeRobotDataset(dataset_root)

    def test_column_dropped(self, dataset_root):
        rewrite(first_data_file(dataset_root), lambda table: table.drop_columns([ACTION]))
        with pytest.raises(DatasetError, match=r"lacks the columns \['action'\]"):
            LeRobotDataset(dataset_root)

    def test_any_flipped_byte_in_the_pages_is_found_when_read(self, v21_root):
        path, rng = first_data_file(v21_root), np.random.default_rng(0)
        whole = path.read_bytes()
        pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # the footer and its length stand at the end
        names = [STATE, ACTION, "timestamp", "task_index"]

        def read_everything() -> list[np.ndarray]:
            dataset = LeRobotDataset(v21_root)
            images = [dataset.images(name, range(5)) for name in (FRONT_IMAGE, WRIST_IMAGE)]
            return [*images, *dataset.read_columns(names).values()]

        intact = read_everything()
        for position in rng.integers(4, pages, 60):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                read = read_everything()
            except DatasetError as error:
                assert path.name in str(error)  # noqa: PT017
            else:  # a bit that nothing depends on, such as page statistics
                assert all(np.array_equal(a, b) for a, b in zip(read, intact, strict=True))

    @pytest.mark.parametrize("broken", [[None], [[1.0]], [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0]], [[None, 1.0, 2.0]]])
    def test_null_and_ragged_rows(self, v21_root, broken):
        def with_broken_row(table: pa.Table) -> pa.Table:
            values = [*broken, *table[STATE].to_pylist()[len(broken) :]]
            return table.set_column(table.column_names.index(STATE), STATE, pa.array(values, pa.list_(pa.float32())))

        rewrite(first_data_file(v21_root), with_broken_row)
        with pytest.raises(DatasetError, match=r"episode_000000.parquet: observation.state: rows .* null, ragged"):
            LeRobotDataset(v21_root).column(STATE)

    def test_feature_of_another_size_than_info_says(self, v21_root, edit_json):
        features = json.loads((v21_root / "meta/info.json").read_text())["features"]
        features[STATE]["shape"] = [4]
        edit_json(v21_root / "meta/info.json", features=features)
        with pytest.raises(DatasetError, match="not of the feature's shape"):
            LeRobotDataset(v21_root).column(STATE)

    def test_images_of_different_sizes_are_named(self, v21_root):
        def with_a_small_image(table: pa.Table) -> pa.Table:
            values = [*table[FRONT_IMAGE].to_pylist()]
            values[2]["bytes"] = encode_png(np.zeros((4, 4, 3), np.uint8))
            return table.set_column(0, FRONT_IMAGE, pa.array(values, table[FRONT_IMAGE].type))

        rewrite(first_data_file(v21_root), with_a_small_image)
        with pytest.raises(DatasetError, match=r"frame 2 has the shape \(4, 4, 3\)"):
            LeRobotDataset(v21_root).images(FRONT_IMAGE, range(5))

    def test_damaged_image_is_named(self, v21_root):
        def with_half_an_image(table: pa.Table) -> pa.Table:
            values = [*table[FRONT_IMAGE].to_pylist()]
            values[2]["bytes"] = values[2]["bytes"][:100]
            return table.set_column(0, FRONT_IMAGE, pa.array(values, table[FRONT_IMAGE].type))

        rewrite(first_data_file(v21_root), with_half_an_image)
        with pytest.raises(
            DatasetError, match=r"episode_000000.parquet: observation.images.front of frame 2: .* lacks"
        ):
            LeRobotDataset(v21_root).images(FRONT_IMAGE, range(5))

    def test_images_by_path_only(self, v21_root):
        def by_path(table: pa.Table) -> pa.Table:
            values = [{"bytes": None, "path": "frame.png"}] * len(table)
            return table.set_column(0, FRONT_IMAGE, pa.array(values, table[FRONT_IMAGE].type))

        rewrite(first_data_file(v21_root), by_path)
        with pytest.raises(DatasetError, match="is a path, not bytes"):
            LeRobotDataset(v21_root).image(FRONT_IMAGE, 0)

    def test_prompt_that_is_not_listed(self, v21_root):
        (v21_root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 1, "task": "Other"}))
        with pytest.raises(DatasetError, match="task_index 0, which meta/tasks does not list"):
            LeRobotDataset(v21_root).prompt(0)
