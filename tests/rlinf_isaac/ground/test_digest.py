from __future__ import annotations

import hashlib
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.ground.digest import bytes_digest, canonical_json, file_digest, json_digest, tree_digest


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "sub" / "b.bin").write_bytes(bytes(range(256)))
    return root


def test_file_and_bytes_digest_are_sha256(tmp_path):
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    assert file_digest(tmp_path / "file") == bytes_digest(data) == hashlib.sha256(data).hexdigest()


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), min_size=2))
def test_json_digest_ignores_key_order(value):
    assert json_digest(dict(reversed(value.items()))) == json_digest(value)


def test_json_digest_tells_values_apart():
    values = [{}, [], None, 0, "0", 0.5, {"a": 1}, {"a": 2}, {"b": 1}, [1, 2], [2, 1]]
    assert len({json_digest(value) for value in values}) == len(values)


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"lr": float("nan")})


class TestTreeDigest:
    def test_is_the_same_for_a_copy_with_other_times(self, tree, tmp_path):
        shutil.copytree(tree, tmp_path / "copy")
        os.utime(tmp_path / "copy" / "a.txt", (0, 0))
        assert tree_digest(tmp_path / "copy") == tree_digest(tree)

    def test_changes_with_content_and_names(self, tree):
        digests = {tree_digest(tree)}
        (tree / "a.txt").write_text("b")
        digests.add(tree_digest(tree))
        (tree / "a.txt").rename(tree / "c.txt")
        digests.add(tree_digest(tree))
        (tree / "sub" / "empty").write_text("")
        digests.add(tree_digest(tree))
        (tree / "sub" / "empty").rename(tree / "empty")
        digests.add(tree_digest(tree))
        assert len(digests) == 5

    def test_of_chosen_files_in_any_order(self, tree):
        files = [tree / "a.txt", tree / "sub" / "b.bin"]
        assert tree_digest(tree, files) == tree_digest(tree, reversed(files)) == tree_digest(tree)
        assert tree_digest(tree, files[:1]) != tree_digest(tree)
