from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_project.comparison.episodes import episode_row, table_row
from mlflow_project.comparison.evaluations import run_id_in
from mlflow_project.tracking.ui import table
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.events import EpisodeRow

rows = st.builds(
    EpisodeRow,
    checkpoint_step=st.integers(0),
    checkpoint=st.text("0123456789abcdef", min_size=64, max_size=64),
    seed=st.integers(0),
    env_index=st.integers(0),
    success=st.booleans(),
    outcome=st.sampled_from(["success", "drop", "timeout"]),
    length=st.integers(1),
    episode_return=st.floats(allow_nan=False),
    policy_seed=st.integers(0),
    subtasks=st.dictionaries(st.text(), st.booleans()),
    video=st.none() | st.text(),
    filmed_outcome=st.sampled_from(["", "timeout"]),
    filmed_length=st.integers(0),
)


@given(rows)
def test_a_row_survives_the_table(row):
    assert episode_row(table_row(row)) == row


def test_rows_of_a_table_may_have_different_columns():
    plain = EpisodeRow(1, "a" * 64, 5000, 0, True, "success", 10, 1.0, 0)
    other = EpisodeRow(1, "a" * 64, 5001, 0, True, "success", 10, 1.0, 0, extras={"force": 2.0}, filmed_outcome="drop")
    found = json.loads(table([table_row(plain), table_row(other)]))
    assert [episode_row(dict(zip(found["columns"], row, strict=True))) for row in found["data"]] == [plain, other]


def test_columns_of_a_newer_release_are_left_out():
    row = EpisodeRow(1, "a" * 64, 5000, 0, True, "success", 10, 1.0, 0)
    assert episode_row(table_row(row) | {"energy": 3.0}) == row


ID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        ID,
        f"http://host:5000/#/experiments/1/runs/{ID}",
        f"http://host:5000/#/experiments/{'1' * 32}/runs/{ID}/artifacts/comparison.html?workflowType=machine_learning",
        f"http://host/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=rlinf-isaac-{ID}",
    ],
)
def test_a_run_is_named_by_its_id_or_a_link(text):
    assert run_id_in(text) == ID


def test_what_holds_no_run_id():
    with pytest.raises(InvalidJob, match="no run id"):
        run_id_in("eval tiny x 3")
