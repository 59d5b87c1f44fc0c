"""Values and counts; through `columns`, with batches so small that episodes lie in different ones."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.data.lerobot.format import ACTION, STATE, vector_feature
from rlinf_isaac.data.validate import columns as validate_columns
from rlinf_isaac.data.validate.dataset import validate_dataset
from rlinf_isaac.ground.errors import Problem

FEATURES = {STATE: vector_feature(["x", "y", "z"]), ACTION: vector_feature(["dx", "dy"])}
LENGTHS = [5, 12, 1, 7]


@pytest.fixture(autouse=True, params=[1, 10, 200_000])
def _batch_rows(request, monkeypatch):
    monkeypatch.setattr(validate_columns, "BATCH_ROWS", request.param)


@pytest.fixture
def write(version, write_v21, write_v30):
    return {"v2.1": write_v21, "v3.0": write_v30}[version]


@pytest.fixture
def root(tmp_path, random_episodes, write) -> Path:
    return write(tmp_path / "data", random_episodes(LENGTHS, features=FEATURES), features=FEATURES)


def edit(root: Path, name: str, frame: int, value, entry: int | None = None) -> None:
    """Set one value, given its global frame index."""
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        if frame < len(table):
            break
        frame -= len(table)
    values = table[name].to_pylist()
    if entry is None:
        values[frame] = value
    else:
        values[frame][entry] = value
    column = pa.array(values, table[name].type)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path)


def only_problem(root: Path) -> Problem:
    (problem,) = validate_dataset(root)
    return problem


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite(root, value):
    edit(root, ACTION, 19, value, entry=1)
    edit(root, ACTION, 4, value, entry=0)
    problem = only_problem(root)
    assert problem.code == "value-not-finite"
    assert (
        f"{ACTION} holds NaN or infinite values in episodes 0, 3; first in episode 0, frame 4, entry 0" in problem.cause
    )
    edit(root, STATE, 18, value, entry=2)
    assert "... " not in only_problem(root).cause
    assert f"{STATE} holds" in only_problem(root).cause
    assert "episodes 3; first in episode 3, frame 0, entry 2" in only_problem(root).cause


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("episode_index", 9, "episode-index"),
        ("frame_index", 3, "frame-index"),
        ("index", 3, "global-index"),
        ("task_index", -1, "task-index"),
        ("timestamp", 0.07, "timestamps"),
        ("timestamp", float("nan"), "value-not-finite"),
    ],
)
def test_auxiliary_columns(root, column, value, code):
    edit(root, column, 6, value)  # the second frame of the second episode
    problem = only_problem(root)
    assert problem.code == code
    assert "in episodes 1; first in episode 1, frame 1, entry 0" in problem.cause


@pytest.mark.parametrize(("value", "code"), [(None, "parquet-damaged"), ([1.0, None, 2.0], "feature-shape")])
def test_null_rows_and_entries_name_their_file(root, value, code, version):
    """pyarrow itself refuses a null row in lists of fixed size."""
    edit(root, STATE, 20, value)
    problem = only_problem(root)
    assert problem.code == code
    assert {"v2.1": "episode_000003.parquet", "v3.0": "file-001.parquet"}[version] in problem.cause
    assert ".parquet" not in problem.cause.split(".parquet", 1)[1], "and no other"


@pytest.mark.parametrize(("value", "named"), [(0.0, "dy = 0"), (2.5, "dy = 2.5")])
def test_constant_actions_are_a_warning(tmp_path, random_episodes, write, value, named):
    episodes = random_episodes(LENGTHS, features=FEATURES)
    for episode in episodes:
        episode[ACTION][:, 1] = value
    problem = only_problem(write(tmp_path / "data", episodes, features=FEATURES))
    assert (problem.code, problem.level) == ("constant-action", "warning")
    assert problem.cause.endswith(f"never change: {named}")


def test_a_dataset_of_one_frame_is_not_constant(tmp_path, random_episodes, write):
    assert validate_dataset(write(tmp_path / "data", random_episodes([1], features=FEATURES), features=FEATURES)) == []


def test_long_episodes_keep_float32_timestamps(tmp_path, random_episodes, write_v21):
    root = write_v21(tmp_path / "data", random_episodes([100_000], features=FEATURES), features=FEATURES)
    assert validate_dataset(root) == []
    edit(root, "timestamp", 99_000, 99_001 / 20)
    assert only_problem(root).code == "timestamps"


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_wrong_count_is_found(data, random_episodes, write_v21):
    """Whichever auxiliary value is changed, in whichever frame."""
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    column = data.draw(st.sampled_from(["episode_index", "frame_index", "index"]))
    frame = data.draw(st.integers(0, sum(lengths) - 1))
    right = {
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "frame_index": np.concatenate([np.arange(length) for length in lengths]),
        "index": np.arange(sum(lengths)),
    }[column][frame]
    value = data.draw(st.integers(-2, 40).filter(lambda value: value != right))
    with tempfile.TemporaryDirectory() as directory:
        episodes = random_episodes(lengths, features=FEATURES)
        root = write_v21(Path(directory) / "data", episodes, features=FEATURES)
        edit(root, column, frame, value)
        codes = {"episode_index": "episode-index", "frame_index": "frame-index", "index": "global-index"}
        assert [problem.code for problem in validate_dataset(root)] == [codes[column]]
