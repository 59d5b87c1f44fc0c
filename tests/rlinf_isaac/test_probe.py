from __future__ import annotations

import importlib.metadata
import sys

from rlinf_isaac.probe import check_free_space, installed_version, output_of


def test_versions_are_those_of_the_metadata():
    assert installed_version("numpy") == importlib.metadata.version("numpy")
    assert installed_version("no-such-distribution") is None


def test_a_command_that_fails_has_no_output():
    assert output_of(sys.executable, "-c", "print(1)").strip() == b"1"
    assert output_of(sys.executable, "-c", "raise SystemExit(1)") is None
    assert output_of("no-such-command") is None


def test_free_space_is_that_of_the_nearest_existing_parent(tmp_path):
    assert check_free_space(tmp_path / "not" / "yet" / "there", 1) == []
    (problem,) = check_free_space(tmp_path / "not", 1 << 60)
    assert problem.code == "disk-space"
