"""What `validate_dataset` finds beside the corpus (test_corpus_datasets.py), in both versions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.data.lerobot.format import ACTION, FRONT_IMAGE, STATE
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.validate.dataset import validate_dataset


def codes(root: Path, **options) -> list[str]:
    return [problem.code for problem in validate_dataset(root, **options)]


def test_both_versions_are_valid(dataset_root):
    assert codes(dataset_root) == codes(dataset_root, full=True) == []


def test_a_linked_dataset_is_valid(dataset_root, tmp_path):
    (tmp_path / "link").symlink_to(dataset_root)
    assert codes(tmp_path / "link") == []


def test_several_faults_at_once(v21_root, edit_json):
    """In meta, in two files and in one value; none hides another."""
    edit_json(v21_root / "meta/info.json", total_frames=99, total_tasks=7)
    (v21_root / "meta/episodes_stats.jsonl").unlink()
    (v21_root / "data/chunk-000/episode_000002.parquet").unlink()
    path = v21_root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    state = table[STATE].to_pylist()
    state[3][1] = float("nan")
    frames = pa.array([*range(11), 99])
    table = table.set_column(table.column_names.index(STATE), STATE, pa.array(state, table[STATE].type))
    pq.write_table(table.set_column(table.column_names.index("frame_index"), "frame_index", frames), path)
    found = validate_dataset(v21_root)
    by_code = {problem.code: problem for problem in found}
    errors = {problem.code for problem in found if problem.level == "error"}
    assert errors == {"frame-count", "parquet-missing", "value-not-finite", "frame-index"}
    assert by_code.keys() - errors == {"task-count", "no-episodes-stats"}
    assert "episodes 1; first in episode 1, frame 3, entry 1: nan" in by_code["value-not-finite"].cause
    assert "first in episode 1, frame 11, entry 0: 99" in by_code["frame-index"].cause


def test_many_broken_episodes_are_one_problem(tmp_path, random_episodes, write_v21):
    root = write_v21(tmp_path / "data", random_episodes([2] * 30))
    files = sorted((root / "data").rglob("*.parquet"))
    for path in files[3:23]:
        path.write_bytes(path.read_bytes()[:-1])
    (problem,) = validate_dataset(root)
    assert problem.code == "parquet-truncated"
    assert "(20 in all)" in problem.cause
    assert [str(path) in problem.cause for path in files[3:9]] == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([(0, "Stack"), (1, "Lift")], []),
        ([(0, "Stack"), (1, "Stack")], ["duplicate-task"]),
        ([(0, "Stack"), (0, "Lift")], ["duplicate-task-index", "task-index"]),
        ([(0, "Stack"), (1, "")], ["empty-prompt"]),
        ([(0, "Stack"), (1, None)], ["meta-format"]),
        ([(0, "Stack"), ("1", "Lift")], ["meta-format"]),
        ([(0, "Stack")], ["task-index", "task-count"]),
    ],
)
def test_tasks(tmp_path, random_episodes, write_v21, tasks, expected):
    root = write_v21(tmp_path / "data", random_episodes([2, 3]), tasks=("Stack", "Lift"))
    lines = [json.dumps({"task_index": index, "task": task}) + "\n" for index, task in tasks]
    (root / "meta/tasks.jsonl").write_text("".join(lines))
    assert codes(root) == expected


class TestCounts:
    def edit_episodes(self, root: Path, change) -> None:
        path = root / "meta/episodes.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in change(list(map(json.loads, path.open())))))

    def test_missing_and_duplicated_episodes_are_named(self, v21_root):
        self.edit_episodes(v21_root, lambda rows: [rows[0], rows[2], rows[2]])
        problems = {problem.code: problem.cause for problem in validate_dataset(v21_root)}
        assert "3 from 0 to 2, 2 more than once, without 1" in problems["episode-indices"]
        assert "episode_000001.parquet" in problems["stray-file"]
        assert problems.keys() == {"episode-indices", "frame-count", "stray-file"}, "no faults that follow from it"

    def test_episode_without_frames(self, v21_root):
        self.edit_episodes(v21_root, lambda rows: [rows[0], rows[1], rows[2] | {"length": 0}])
        assert set(codes(v21_root)) == {"frame-count", "no-frames"}

    @pytest.mark.parametrize("row", ["[]", "{}", '{"episode_index": "0", "length": 5}', '{"episode_index": 0.5}'])
    def test_rows_of_another_form(self, v21_root, row):
        (v21_root / "meta/episodes.jsonl").write_text(row)
        assert codes(v21_root) == ["meta-format"]

    def test_no_episodes(self, v21_root):
        self.edit_episodes(v21_root, lambda rows: [])
        assert "no-episodes" in codes(v21_root)

    def test_v30_file_with_too_few_rows(self, tmp_path, random_episodes, write_v30):
        root = write_v30(tmp_path / "data", random_episodes([4, 5, 6]))
        path = root / "data/chunk-000/file-000.parquet"
        pq.write_table(pq.read_table(path).slice(0, 7), path)
        assert codes(root) == ["frame-count"]


def test_leftovers_of_killed_writers(v21_root):
    (v21_root.parent / f".{v21_root.name}.tmp-123-0a1b2c3d").mkdir()
    (v21_root / "images/observation.images.front/episode_000003").mkdir(parents=True)
    (v21_root / "images/observation.images.front/episode_000003/frame_000000.png").write_bytes(b"")
    (v21_root / "meta" / ".info.json.tmp-99-00ff00ff").write_text("{")
    (problem,) = validate_dataset(v21_root)
    assert (problem.code, problem.level) == ("writer-leftover", "warning")
    assert all(name in problem.cause for name in (".tmp-123-", "images", ".tmp-99-"))


def test_the_empty_folders_that_lerobots_recorder_leaves_are_none(v21_root):
    for camera in ("front", "wrist"):
        (v21_root / f"images/observation.images.{camera}").mkdir(parents=True)
    assert validate_dataset(v21_root) == []


def test_stray_files_and_link_loops(v21_root):
    shutil.copy(v21_root / "data/chunk-000/episode_000000.parquet", v21_root / "data/chunk-000/episode_000003.parquet")
    assert codes(v21_root) == ["stray-file"]
    (v21_root / "data" / "loop").symlink_to(v21_root)
    assert codes(v21_root) == ["dataset-link-loop"]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_whatever_is_damaged_problems_come_out_and_no_exception(data, random_episodes, write_v21, write_v30):
    """Any byte of meta or data; and what `validate_dataset` lets pass, the reader can open and read."""
    with tempfile.TemporaryDirectory() as directory:
        write = data.draw(st.sampled_from([write_v21, write_v30]))
        root = write(Path(directory) / "data", random_episodes([3, 2]))
        path = data.draw(st.sampled_from(sorted(path for path in root.rglob("*") if path.is_file())))
        content = bytearray(path.read_bytes())
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content[: data.draw(st.sampled_from([position, len(content)]))])
        if all(problem.level == "warning" for problem in validate_dataset(root, full=True)):
            dataset = LeRobotDataset(root)
            assert np.isfinite(dataset.column(ACTION)).all()
            assert dataset.images(FRONT_IMAGE, range(5)).shape == (5, 8, 10, 3)
            assert dataset.prompt(4)


def test_imports_neither_torch_nor_av():
    code = "import sys, rlinf_isaac.data.validate.dataset; print({'torch', 'av', 'mujoco'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
