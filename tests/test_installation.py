"""README, docs/, pyproject.toml and the constraints agree about what is installed; ``.ci/run`` tries that it is."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from readme_lines import CPU_INDEX, README, first_block, installs, pages, with_wheels
from resolve import PYTHONS, questions
from stock import environment

from rlinf_isaac.envs.isaaclab.versions import REQUIREMENTS
from rlinf_isaac.preflight.environment import GUESTS, OPTIONAL

PROJECT = Path(__file__).parents[1]
METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = METADATA["optional-dependencies"]

PINNED = {
    "constraints.txt": ("dev", "ray"),
    "constraints-rlinf.txt": ("ray", "rlinf"),
    "constraints-openpi.txt": ("openpi", "ray", "test"),
    "constraints-lerobot.txt": ("lerobot", "test"),
}
"""Constraints -> the extras that are installed with them."""


def pins(path: Path) -> dict[str, str]:
    """Name -> version of what a file of requirements pins."""
    lines = [line for line in path.read_text().splitlines() if "==" in line and line[0] != "#"]
    found = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(found) == len(lines), f"{path.name} pins a name twice"
    return found


def required(extras: tuple[str, ...], python: str) -> list[Requirement]:
    """What the project and these extras ask for on Linux; an extra of its own is followed."""
    words = [*METADATA["dependencies"], *(each for extra in extras for each in EXTRAS[extra])]
    found = []
    for requirement in map(Requirement, words):
        if requirement.name == METADATA["name"]:
            found += required(tuple(requirement.extras), python)
        elif requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            found.append(requirement)
    return found


@pytest.mark.parametrize("file", PINNED)
def test_what_is_asked_for_is_pinned_within_its_range(file):
    pinned = pins(PROJECT / file)
    for python in PYTHONS.get(file, ("3.11",)):
        for each in required(PINNED[file], python):
            version = pinned.get(canonicalize_name(each.name))
            assert version, f"{file} does not pin {each.name}"
            assert each.specifier.contains(version, prereleases=True), f"{file} pins {each.name} {version}: not {each}"


def test_a_file_of_constraints_holds_nothing_but_pins():
    for file in PINNED:
        lines = (PROJECT / file).read_text().splitlines()
        assert [line for line in lines if not re.fullmatch(r"#.*|[\w.-]+==[\w.!+]+", line)] == []


def test_what_is_pinned_is_on_the_index_and_no_build_of_a_machine():
    """A CPU build is named by ``+cpu``, which the index does not have."""
    for file in PINNED:
        assert [line for line in pins(PROJECT / file).items() if "+" in line[1]] == []


def test_isaaclab_has_one_pin_and_fits_beside_this_project():
    pinned = pins(REQUIREMENTS)
    (extra,) = map(Requirement, EXTRAS["isaaclab"])
    assert str(extra.specifier) == f"=={pinned[extra.name]}"
    for each in required((), "3.12"):
        if version := pinned.get(canonicalize_name(each.name)):
            assert each.specifier.contains(version), f"{REQUIREMENTS.name} pins {each.name} {version}: not {each}"


def test_the_conda_environment_is_readmes():
    content = yaml.safe_load((PROJECT / "conda.yaml").read_text())
    *packages, last = content["dependencies"]
    assert packages == ["python=3.11", "pip"], "uv and virtualenv drop other conda packages"
    assert last == {"pip": ["-c constraints.txt", "-e ."]}
    assert "3.11" in PYTHONS["constraints.txt"]


def test_readme_names_what_there_is():
    lines = installs()
    guests = [each for each in lines if each.constraints is None]
    assert all(any("==" in word for word in each.arguments) for each in guests)  # somebody else's package, pinned there
    lines = [each for each in lines if each not in guests]
    assert {each.constraints for each in lines} == {*PINNED, str(REQUIREMENTS.relative_to(PROJECT))}
    for each in lines:
        assert (PROJECT / str(each.constraints)).is_file(), each
        for argument in each.arguments:
            if extra := re.fullmatch(r"\.\[(.*)\]", argument):
                assert set(extra[1].split(",")) <= set(EXTRAS), each


def test_the_first_line_says_where_a_cpu_build_is_and_the_second_has_cuda():
    first, second, *_ = installs()
    assert first.of_cpu
    assert not second.of_cpu
    assert [word for word in first.arguments if word not in ("--extra-index-url", CPU_INDEX)] == [*second.arguments]
    assert first.line in first_block(README.read_text())
    assert with_wheels(first.line, "a b") == first.line.replace(f"--extra-index-url {CPU_INDEX}", "--find-links 'a b'")


def test_each_line_of_readme_and_docs_is_resolved():
    resolved = {(python, each.arguments) for python, each in questions("uv")}
    assert {each.arguments for each in installs() if not each.of_cpu} == {arguments for _, arguments in resolved}
    for file, pythons in PYTHONS.items():
        everything = next(each for each in installs() if each.constraints == file and not each.of_cpu)
        assert {python for python, each in questions("uv") if each.constraints == file} == set(pythons)
        assert ("3.13", everything.arguments) in resolved
    assert {(python, each.arguments[-1]) for python, each in questions("pip")} == {("3.13", "."), ("3.11", ".[rlinf]")}


def test_a_guests_environment_is_made_as_the_docs_say():
    text = "\n".join(page.read_text() for page in pages())
    for each in GUESTS:
        for command in each.cure.split(" && "):
            assert command in text, f"no page has {command!r}"
        assert each.variable in text
    for _, cure in OPTIONAL.values():
        assert re.search(r"\[(\w+)\]", cure)[1] in EXTRAS


def test_install_lines_are_read_out_of_shell():
    text = """
pip install outside
    python3.12 -m venv v && v/bin/pip install -c c.txt -e '.[a,b]' # pip install comment
    pip install x; echo pip install y

    a figure's pip install
    pip install -q z

```bash
python3.13 -m venv w
w/bin/pip install fenced  # in a fence
```
```text
pip install not-shell
```
"""
    found = [(each.python, each.constraints, each.arguments) for each in installs(text)]
    assert found == [
        ("3.12", "c.txt", ("-c", "c.txt", "-e", ".[a,b]")),
        ("3.12", None, ("x",)),
        ("3.11", None, ("-q", "z")),
        ("3.13", None, ("fenced",)),
    ]


def test_a_stock_machine_has_no_settings_of_pip(monkeypatch, tmp_path):
    for name in ("PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "UV_FIND_LINKS"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", "/certificates")
    stock = environment(str(tmp_path))
    assert stock["SSL_CERT_FILE"] == "/certificates"
    assert not {name for name in stock if name.startswith(("PIP_", "UV_"))} & {"PIP_FIND_LINKS", "UV_FIND_LINKS"}
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, env=stock, capture_output=True, text=True, check=True).stdout
    assert {line.partition("=")[0] for line in listed.splitlines()} == {
        ":env:.config-file",
        ":env:.disable-pip-version-check",
    }
