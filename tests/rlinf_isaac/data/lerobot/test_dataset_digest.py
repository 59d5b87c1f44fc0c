from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.data.lerobot import dataset_digest as module
from rlinf_isaac.data.lerobot.dataset_digest import cached_dataset_digest, dataset_digest
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.ground.digest import tree_digest
from rlinf_isaac.ground.errors import DatasetError

FILES = {
    "meta/info.json": b"{}",
    "meta/tasks.jsonl": b"",
    "data/chunk-000/episode_000000.parquet": b"PAR1....PAR1",
    "videos/chunk-000/front/episode_000000.mp4": b"mp4",
}


def make_files(root: Path) -> Path:
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return grow_old(root)


def grow_old(root: Path) -> Path:
    """So that every edit after this changes the mtime, however soon it comes."""
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    return root


def tree(root: Path) -> dict[str, tuple[bytes | None, int]]:
    return {
        str(p.relative_to(root)): (p.read_bytes() if p.is_file() else None, p.stat().st_mtime_ns)
        for p in root.rglob("*")
    }


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def patient(monkeypatch) -> None:
    """As if the files had not been written just now."""
    monkeypatch.setattr(module, "RACY_NS", -(1 << 62))


@pytest.fixture
def root(tmp_path) -> Path:
    return make_files(tmp_path / "home" / "data")


def entries(cache: Path) -> list[Path]:
    return list(cache.rglob("*.json"))


def test_is_the_tree_digest_of_three_directories_and_that_of_the_reader(v21_root):
    (v21_root / "norm_stats.json").write_text("{}")
    files = [path for part in ("meta", "data") for path in (v21_root / part).rglob("*")]
    assert dataset_digest(v21_root) == tree_digest(v21_root, files) == LeRobotDataset(v21_root).digest


@pytest.mark.usefixtures("patient")
class TestCache:
    def test_is_used_without_opening_a_file(self, root, cache):
        assert cached_dataset_digest(root) is None
        digest = dataset_digest(root)
        (entry,) = entries(cache)
        content = json.loads(entry.read_text())["content"]
        assert [name for name, *_ in content["files"]] == sorted(FILES)
        # Another digest in a well-formed entry comes back, so that one is believed and nothing is hashed.
        content["digest"] = "0" * 64
        entry.write_text(json.dumps({"sha256": module.json_digest(content), "content": content}))
        assert cached_dataset_digest(root) == dataset_digest(root) == "0" * 64
        entry.unlink()
        assert cached_dataset_digest(root) is None
        assert dataset_digest(root) == digest

    def test_nothing_is_written_inside_the_dataset(self, root, monkeypatch):
        before = tree(root)
        dataset_digest(root)
        monkeypatch.setenv("RLINF_ISAAC_CACHE", str(root / "meta"))
        dataset_digest(root)
        (root.parent / "link").symlink_to(root)
        monkeypatch.setenv("RLINF_ISAAC_CACHE", str(root.parent / "link"))
        dataset_digest(root)
        assert tree(root) == before

    def test_of_a_copy_a_link_and_a_relative_name(self, root, cache, monkeypatch):
        digest = dataset_digest(root)
        shutil.copytree(root, root.parent / "copy")
        (root.parent / "link").symlink_to(root)
        monkeypatch.chdir(root.parent)
        assert cached_dataset_digest("data") == digest
        assert dataset_digest("copy") == dataset_digest(root.parent / "link") == digest
        assert len(entries(cache)) == 3

    def test_an_edit_that_restores_size_and_mtime_is_noticed(self, root):
        digests = [dataset_digest(root)]
        path = root / "meta/info.json"
        before = path.stat()
        path.write_bytes(b"[]")
        while path.stat().st_ctime_ns == before.st_ctime_ns:  # the next tick of the file system's clock
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert cached_dataset_digest(root) is None
        digests.append(dataset_digest(root))
        (root.parent / "new").write_bytes(b"()")
        os.utime(root.parent / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(root.parent / "new", path)
        assert cached_dataset_digest(root) is None
        digests.append(dataset_digest(root))
        assert len(set(digests)) == 3

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_any_change_changes_it(self, data):
        with tempfile.TemporaryDirectory() as directory:
            root = make_files(Path(directory) / "data")
            before = dataset_digest(root)
            assert cached_dataset_digest(root) == before
            path = root / data.draw(st.sampled_from(sorted(FILES)))
            change = data.draw(st.sampled_from(["edit", "append", "add", "rename", "remove"]))
            content = bytearray(path.read_bytes())
            if change == "edit" and content:
                content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
                path.write_bytes(content)
            elif change == "add":
                path.with_name(data.draw(st.text("abc", min_size=1))).write_bytes(bytes(content))
            elif change == "rename":
                path.rename(path.with_name(data.draw(st.text("abc", min_size=1))))
            elif change == "remove":
                path.unlink()
            else:
                path.write_bytes(content + b"\0")
            assert cached_dataset_digest(root) is None
            assert dataset_digest(root) != before
            assert cached_dataset_digest(root) == dataset_digest(root)

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_a_damaged_entry_is_ignored(self, data):
        with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
            patch.setenv("RLINF_ISAAC_CACHE", directory + "/cache")
            root = make_files(Path(directory) / "data")
            digest = dataset_digest(root)
            (entry,) = entries(Path(directory) / "cache")
            content = bytearray(entry.read_bytes())
            position = data.draw(st.integers(0, len(content) - 1))
            content[position] ^= data.draw(st.integers(1, 255))
            entry.write_bytes(content[: data.draw(st.sampled_from([position, len(content)]))])
            assert cached_dataset_digest(root) in (None, digest)
            assert dataset_digest(root) == digest

    @pytest.mark.parametrize("content", ["", "[]", "null", '{"sha256": 1}', '{"sha256": "", "content": []}'])
    def test_an_entry_of_another_form_is_ignored(self, root, cache, content):
        digest = dataset_digest(root)
        entries(cache)[0].write_text(content)
        assert cached_dataset_digest(root) is None
        assert dataset_digest(root) == digest

    def test_a_cache_that_cannot_be_written_is_no_error(self, root, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "file"))
        assert len(dataset_digest(root)) == 64
        monkeypatch.setenv("RLINF_ISAAC_CACHE", "/proc/nothing")
        assert len(dataset_digest(root)) == 64
        assert cached_dataset_digest(root) is None

    def test_default_places(self, root, tmp_path, monkeypatch):
        monkeypatch.delenv("RLINF_ISAAC_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        dataset_digest(root)
        assert len(entries(tmp_path / "xdg/rlinf-isaac/dataset-digests")) == 1
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "me"))
        dataset_digest(root)
        assert len(entries(tmp_path / "me/.cache/rlinf-isaac/dataset-digests")) == 1


def test_files_that_changed_a_moment_ago_are_not_kept(root, cache):
    first = dataset_digest(root)
    assert entries(cache) == []
    assert cached_dataset_digest(root) is None
    assert dataset_digest(root) == first


@pytest.mark.parametrize("target", ["data", "elsewhere"])
def test_link_loop_inside_a_dataset(root, target):
    """Above itself; or twice to one place, which links to links make billions of."""
    (root / "elsewhere").mkdir()
    for name in ("loop", "again"):
        (root / "data" / name).symlink_to(root / target)
    with pytest.raises(DatasetError) as error:
        dataset_digest(root)
    assert error.value.problems[0].code == "dataset-link-loop"


def test_import_is_light():
    module = "rlinf_isaac.data.lerobot.dataset_digest"
    code = f"import sys, {module}; print({{'numpy', 'pyarrow', 'torch', 'PIL'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
