from __future__ import annotations

import pytest

from rlinf_isaac.data.lerobot.files import read_json, read_json_lines, read_parquet
from rlinf_isaac.ground.errors import DatasetError


def test_read_json_wants_an_object(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(DatasetError, match="JSON list, not an object"):
        read_json(tmp_path / "list.json")


def test_read_parquet_names_a_missing_column(v21_root):
    path = v21_root / "data/chunk-000/episode_000000.parquet"
    assert read_parquet(path, ["index"]).column_names == ["index"]
    with pytest.raises(DatasetError, match="no column nothing"):
        read_parquet(path, ["index", "nothing"])


def test_read_json_lines_names_the_line(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"task": "a\u2028b"}\n\n[1]\n{"task": \n')
    lines = read_json_lines(path)
    assert [next(lines), next(lines)] == [{"task": "a\u2028b"}, [1]]
    with pytest.raises(DatasetError, match=r"lines\.jsonl, line 4") as error:
        next(lines)
    assert error.value.problems[0].code == "meta-damaged"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: data[:-20], "parquet-truncated"),
        (lambda data: data[:2], "parquet-truncated"),
        (lambda data: b"", "parquet-truncated"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1", "not-parquet"),
        (lambda data: data[:4] + bytes(len(data) - 12) + data[-8:], "parquet-damaged"),
    ],
)
def test_kinds_of_parquet_damage(v21_root, damage, code):
    path = v21_root / "data/chunk-000/episode_000000.parquet"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=r"episode_000000\.parquet") as error:
        read_parquet(path)
    assert error.value.problems[0].code == code
    path.unlink()
    with pytest.raises(DatasetError, match="is missing") as error:
        read_parquet(path)
    assert error.value.problems[0].code == "parquet-missing"
