"""Every broken preset of the corpus is refused with its code; its valid twin is not."""

from __future__ import annotations

import pytest
from corpus import configs

from rlinf_isaac.config import load_config
from rlinf_isaac.preflight import Findings, check_config, check_trainable


def codes_of(path):
    findings = Findings()
    with findings.collect():
        config = load_config(str(path))
        findings.add([*check_config(config), *check_trainable(config, has_base=False)])
    return {problem.code for problem in findings.errors}


def test_the_valid_twin_passes(tmp_path):
    configs.make_valid(tmp_path / "mine.yaml")
    assert codes_of(tmp_path / "mine.yaml") == set()


@pytest.mark.parametrize("case", configs.CASES, ids=lambda case: case.name)
def test_a_broken_preset_is_refused_with_its_code(case, tmp_path):
    configs.make_valid(tmp_path / "mine.yaml")
    case.break_it(tmp_path / "mine.yaml")
    assert case.code in codes_of(tmp_path / "mine.yaml")
