"""YAML is measured before it is built."""

from __future__ import annotations

import pytest
import yaml

from rlinf_isaac.ground.yaml_text import check_yaml_text, read_yaml_text


@pytest.mark.parametrize("text", ["", "a: 1\n", "a: &x [1, 2]\nb: *x\nc: {<<: {d: *x}}\n", "- &a 1\n- *a\n"])
def test_what_people_write(text, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    assert read_yaml_text(tmp_path / "x.yaml") == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)),
            "nodes",
        ),
        ("x: &x [*x]\n", "refers to nothing"),
        ("[" * 200 + "]" * 200, "nests too deeply"),
        ("\n".join(" " * n + "a:" for n in range(300)), "nests too deeply"),
    ],
)
def test_what_grows(text, why):
    with pytest.raises(ValueError, match=why):
        check_yaml_text(text)


@pytest.mark.parametrize("text", ["a: [", "\x1b", "a: *x"])
def test_what_is_no_yaml(text):
    with pytest.raises((yaml.YAMLError, ValueError)):
        check_yaml_text(text)
