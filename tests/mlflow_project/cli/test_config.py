"""`config` shows the values of a job with their origins, and how two configs differ."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from mlflow_project.cli import cli
from rlinf_isaac.config import flatten, known_keys, load_config


def invoke(*words):
    return CliRunner().invoke(cli, ["config", *words])


def test_every_key_has_its_value_and_its_origin(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("preset: mine\nbase: tiny\nsft: {steps: 7}\n")
    result = invoke("show", "--preset", str(own), "--overrides", "sft.lr=2e-4", "--format", "json")
    shown = json.loads(result.stdout)
    config = flatten(load_config(str(own), ["sft.lr=2e-4"]))
    assert {key: each["value"] for key, each in shown.items()} == {key: config[key] for key in known_keys()}
    assert shown["sft.lr"] == {"value": 2e-4, "from": "command line"}
    assert shown["sft.steps"] == {"value": 7, "from": f"preset {own}"}
    assert shown["sft.batch_size"]["from"] == "preset tiny"
    assert shown["eval.episodes"]["from"] == "default"


def test_a_verb_shows_the_keys_that_it_reads():
    lines = invoke("show", "sft").stdout.splitlines()
    keys = {line.split()[0] for line in lines}
    assert "sft.lr" in keys
    assert "rl.lr" not in keys
    assert next(line for line in lines if line.startswith("sft.lr ")).split() == ["sft.lr", "1e-3", "preset", "tiny"]


def test_the_yaml_is_a_preset(tmp_path):
    text = invoke("show", "--preset", "pi05", "--overrides", "sft.lr=1e-5", "--format", "yaml").stdout
    file = tmp_path / "copy.yaml"
    file.write_text(text)
    assert load_config(str(file)) == load_config("pi05", ["sft.lr=1e-5"])


def test_differences():
    shown = json.loads(invoke("diff", "tiny", "small", "--format", "json").stdout)
    one, other = (flatten(load_config(name)) for name in ("tiny", "small"))
    assert shown == {key: {"a": one[key], "b": other[key]} for key in known_keys() if one[key] != other[key]}
    nested = yaml.safe_load(invoke("diff", "tiny", "small", "--format", "yaml").stdout)
    assert nested["sft"]["steps"] == other["sft.steps"]
    assert invoke("diff", "tiny", "tiny").stdout == f"0 of {len(known_keys())} keys differ\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["show", "serve-it"], "bad-options"),
        (["show", "sft", "--overrides", "rl.lr=1"], "not-read"),
        (["show", "--preset", "pi0.5"], "unknown-preset"),
        (["diff", "tiny"], "bad-options"),
        (["diff", "tiny", "nothing"], "unknown-preset"),
    ],
)
def test_what_is_wrong_is_a_finding(words, code):
    result = invoke(*words)
    assert result.exit_code == 2
    assert f"error {code}" in result.stderr
