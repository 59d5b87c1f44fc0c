from __future__ import annotations

import importlib.metadata
import sys

from rlinf_isaac.ground.probe import check_free_space, importable_version, installed_version, output_of


def test_a_checkout_on_the_path_wins_over_what_is_installed(tmp_path, monkeypatch):
    assert importable_version("numpy") == importlib.metadata.version("numpy")
    assert importable_version("no_such_package") is None
    package = tmp_path / "made_up_package/__init__.py"
    package.parent.mkdir()
    package.write_text("raise AssertionError('it is looked at, not imported')")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "made_up_package"\nversion = "0.4.0"\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert importable_version("made_up_package") == "0.4.0"


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
