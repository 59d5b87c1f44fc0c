"""Hostile files and options through the real command line: no traceback, no hang, nothing executed, nothing that acts
on a terminal, and an exit code that is right."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from faults.attackers import Ended, executed_in, fetch, victim
from faults.hostile import ATTACKS
from faults.world import make_world

from mlflow_project.cli import cli

EVERY = int(os.environ.get("ATTACKS_EVERY", "8"))
"""One attack in so many; 1 takes them all, which is minutes."""
SAMPLE = (
    "doctor: data_path is two billion blanks",
    "doctor: a version of commands",
    "doctor: an episode beyond counting",
    "doctor: a bundle with prompts as a list",
    "bundle show: a bundle with prompts of commands",
    "doctor: an interpolation deep inside in a preset",
    "doctor: a billion laughs in a preset",
    "doctor: a number of four hundred digits in a preset",
    "norm_stats --check: norm stats with keys of commands",
    "norm_stats: an output a link to nothing",
    "convert: a shell in a .pt file",
    "ingest: a billion laughs as the config of a run",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory, small_dataset, small_checkpoints) -> Path:
    return make_world(tmp_path_factory.mktemp("hostile") / "world", small_dataset, small_checkpoints / "6")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample(name, world, tmp_path, monkeypatch):
    attack = next(each for each in ATTACKS if each.name == name)
    fetch(attack, world, tmp_path)
    attack.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, list(attack.words))
    trace = "" if isinstance(result.exception, SystemExit | None) else "Traceback (most recent call last)"
    ended = Ended(result.exit_code, 0, 0, 0, result.stdout, result.stderr + trace)
    assert ended.faults(attack.codes, executed_in(tmp_path)) == [], result.output


@pytest.mark.slow
def test_each_ends_as_it_should(world, tmp_path):
    """With 1 GiB of memory, 20 s of computing and a minute of waiting for each."""
    found, codes, verbs = {}, Counter(), Counter()
    with victim(world, tmp_path / "scratch") as sufferer:
        for number in range(0, len(ATTACKS), EVERY):
            ended, faults = sufferer.suffer(number)
            codes[ended.code] += 1
            verbs[ATTACKS[number].verb] += 1
            if faults:
                found[ATTACKS[number].name] = (faults, ended.stderr[-2000:])
    print(f"{codes.total()} attacks, by exit code {dict(codes)}, by verb {dict(verbs)}")
    assert len(ATTACKS) >= 300
    assert found == {}


def test_their_names_tell_them_apart():
    assert [name for name, count in Counter(attack.name for attack in ATTACKS).items() if count > 1] == []
