from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlinf_isaac.data.lerobot.dataset_digest import dataset_digest
from rlinf_isaac.data.lerobot.resolve import DatasetLocation, lerobot_home, resolve_dataset
from rlinf_isaac.ground.errors import DatasetError


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


def test_all_ways_through_links_lead_to_one_dataset(home, tmp_path, monkeypatch):
    """One (home, repo id) per name of the directory; that they are the same dataset, the digest tells."""
    (tmp_path / "link").symlink_to(home / "owner" / "data")
    (tmp_path / "home_link").symlink_to("home")
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home_link"))
    names = [home / "owner/data", tmp_path / "link", tmp_path / "home_link/owner/data", "owner/data", "../link"]
    located = [resolve_dataset(name) for name in names]
    located += [resolve_dataset(tmp_path / "home_link", "owner/data"), resolve_dataset("../home", "owner/data")]
    assert {location.root for location in located} == {Path(os.path.abspath(name)) for name in names[:3]}
    for location in located:
        assert location.root == location.home / location.repo_id
        assert location.root.samefile(home / "owner" / "data")
        assert dataset_digest(location.root) == dataset_digest(home / "owner" / "data")


def test_environment_of_child_processes(home):
    location = resolve_dataset("../home", "owner/data")
    assert location.environment == {"HF_LEROBOT_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def make_link_loop(place: Path) -> None:
    (place.parent / "other").symlink_to(place)
    place.symlink_to(place.parent / "other")


def make_hub_cache(place: Path) -> None:
    (place / "snapshots" / "0123abc" / "meta").mkdir(parents=True)
    (place / "snapshots" / "0123abc" / "meta" / "info.json").write_text("{}")


BROKEN_PLACES = {
    "dataset-link-loop": make_link_loop,
    "dataset-link-dangling": lambda place: place.symlink_to("nowhere"),
    "dataset-is-file": lambda place: place.write_text("a zip, perhaps"),
    "dataset-hub-cache": make_hub_cache,
    "meta-missing": lambda place: (place / "data" / "chunk-000").mkdir(parents=True),
    "dataset-not-found": lambda place: place.mkdir(),
}


@pytest.mark.parametrize("code", BROKEN_PLACES)
def test_places_that_hold_no_dataset(code, home, monkeypatch):
    place = home / "owner" / "broken"
    BROKEN_PLACES[code](place)
    before = everything_below(home)
    monkeypatch.setenv("HF_LEROBOT_HOME", str(home))
    for arguments in ([place], ["owner/broken"], [home, "owner/broken"], ["../home/owner/broken"]):
        with pytest.raises(DatasetError, match="broken") as error:
            resolve_dataset(*arguments)
        assert [problem.code for problem in error.value.problems] == [code]
        assert "snapshots/0123abc" in error.value.problems[0].cure or code != "dataset-hub-cache"
    assert everything_below(home) == before


def test_dangling_parent_and_a_name_that_is_no_path(home, tmp_path):
    (tmp_path / "gone").symlink_to("/mnt/unmounted")
    with pytest.raises(DatasetError, match="gone is a symbolic link to /mnt/unmounted") as error:
        resolve_dataset(tmp_path / "gone" / "owner" / "data")
    assert error.value.problems[0].code == "dataset-link-dangling"
    with pytest.raises(DatasetError, match="not a path") as error:
        resolve_dataset("owner\0data")
    assert error.value.problems[0].code == "dataset-name"


def test_directory_that_may_not_be_read(home):
    (home / "owner").chmod(0)
    code = """
import os, sys
from rlinf_isaac.data.lerobot.resolve import resolve_dataset
from rlinf_isaac.ground.errors import DatasetError
os.chdir("/")
if os.geteuid() == 0:  # nothing is closed to root
    os.setuid(65534)
try:
    resolve_dataset(sys.argv[1])
except DatasetError as error:
    print(error.problems[0].code)
"""
    try:
        output = subprocess.check_output([sys.executable, "-c", code, str(home / "owner" / "data")], text=True)
    finally:
        (home / "owner").chmod(0o755)
    assert output.strip() == "dataset-unreadable"


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


def test_dataset_of_nearly_that_name_is_proposed(home, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(home))
    (home / "owner" / "dat").mkdir()  # no dataset
    for name in (home / "owner" / "daat", "owner/daat"):
        with pytest.raises(DatasetError) as error:
            resolve_dataset(name)
        assert error.value.problems[0].cure == f"did you mean {home}/owner/data?"
    with pytest.raises(DatasetError) as error:
        resolve_dataset(home / "owner" / "something else")
    assert "did you mean" not in str(error.value.problems[0].cure)


@pytest.mark.parametrize("repo_id", ["", "/abs/olute", "../up", "a/../../b"])
def test_repo_ids_that_are_not_names(home, repo_id):
    with pytest.raises(DatasetError, match="repo id"):
        resolve_dataset(home, repo_id)


def test_empty_name(home):
    with pytest.raises(DatasetError, match="empty"):
        resolve_dataset("")


def test_import_is_light():
    code = (
        "import sys, rlinf_isaac.data.lerobot.resolve; print({'numpy', 'pyarrow', 'torch', 'PIL'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_home_directories(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    assert resolve_dataset("~/owner/data").root == home / "owner" / "data"
    with pytest.raises(DatasetError, match="no LeRobot dataset"):
        resolve_dataset("~nobody-of-this-name/data")
