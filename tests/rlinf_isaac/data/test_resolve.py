from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlinf_isaac.data.resolve import DatasetLocation, lerobot_home, resolve_dataset
from rlinf_isaac.errors import DatasetError


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home with the dataset owner/data, as the working directory's neighbour."""
    home = tmp_path / "home"
    (home / "owner" / "data" / "meta").mkdir(parents=True)
    (home / "owner" / "data" / "meta" / "info.json").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for variable in ("HF_LEROBOT_HOME", "HF_HOME"):
        monkeypatch.delenv(variable, raising=False)
    return home


def everything_below(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*"))


def test_leaf_directory_absolute_and_relative(home, monkeypatch):
    expected = DatasetLocation(home / "owner", "data", home / "owner" / "data")
    assert resolve_dataset(home / "owner" / "data") == expected
    assert resolve_dataset(str(home / "owner" / "data") + "/") == expected
    assert resolve_dataset("../home/owner/data") == expected
    monkeypatch.chdir(home / "owner" / "data")
    assert resolve_dataset(".") == expected


def test_parent_and_repo_id(home):
    expected = DatasetLocation(home, "owner/data", home / "owner" / "data")
    assert resolve_dataset(home, "owner/data") == expected
    assert resolve_dataset("../home", "owner/data") == expected
    assert resolve_dataset(home / "owner", "data").root == expected.root


def test_leaf_directory_wins_over_a_repo_id(home):
    assert resolve_dataset(home / "owner" / "data", "owner/data") == DatasetLocation(
        home, "owner/data", home / "owner" / "data"
    )
    assert resolve_dataset(home / "owner" / "data", "other/name").repo_id == "data"


def test_repo_id_under_the_lerobot_home(home, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(home))
    assert resolve_dataset("owner/data") == DatasetLocation(home, "owner/data", home / "owner" / "data")
    monkeypatch.setenv("HF_LEROBOT_HOME", "../home")
    assert resolve_dataset("owner/data").home == home, "a relative home is relative to the working directory"


def test_a_local_directory_goes_before_the_lerobot_home(home, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(home))
    local = tmp_path / "elsewhere" / "owner" / "data"
    (local / "meta").mkdir(parents=True)
    (local / "meta" / "info.json").write_text("{}")
    assert resolve_dataset("owner/data").root == local


def test_default_homes(home, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert lerobot_home() == Path("/home/somebody/.cache/huggingface/lerobot")
    monkeypatch.setenv("HF_HOME", "/cache/hf")
    assert lerobot_home() == Path("/cache/hf/lerobot")
    monkeypatch.setenv("HF_LEROBOT_HOME", "~/data")
    assert lerobot_home() == Path("/home/somebody/data")


def test_symbolic_links_keep_their_names(home, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(home / "owner" / "data")
    assert resolve_dataset(link) == DatasetLocation(tmp_path, "link", link)
    (tmp_path / "home_link").symlink_to(home)
    assert resolve_dataset(tmp_path / "home_link", "owner/data").root == tmp_path / "home_link" / "owner" / "data"


def test_not_found_lists_where_it_looked_and_creates_nothing(home, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(home))
    before = everything_below(home.parent)
    with pytest.raises(DatasetError) as error:
        resolve_dataset("owner/missing")
    assert f"{os.getcwd()}/owner/missing (no such directory)" in str(error.value)
    assert f"{home}/owner/missing (no such directory)" in str(error.value)
    with pytest.raises(DatasetError, match="parent of data"):
        resolve_dataset(home / "owner")
    with pytest.raises(DatasetError, match=r"meta/info\.json is in none of"):
        resolve_dataset(home / "owner" / "data" / "owner", "data")
    assert everything_below(home.parent) == before


@pytest.mark.parametrize("repo_id", ["", "/abs/olute", "../up", "a/../../b"])
def test_repo_ids_that_are_not_names(home, repo_id):
    with pytest.raises(DatasetError, match="repo id"):
        resolve_dataset(home, repo_id)


def test_empty_name(home):
    with pytest.raises(DatasetError, match="empty"):
        resolve_dataset("")


def test_import_is_light():
    code = "import sys, rlinf_isaac.data.resolve; print({'numpy', 'pyarrow', 'torch', 'PIL'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_home_directories(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    assert resolve_dataset("~/owner/data").root == home / "owner" / "data"
    with pytest.raises(DatasetError, match="no LeRobot dataset"):
        resolve_dataset("~nobody-of-this-name/data")
