from __future__ import annotations

import re
from pathlib import Path

from rlinf_isaac.envs.conformance import motions, recorded
from rlinf_isaac.envs.conformance.kept import OF_DATASET, keep_findings, kept_findings
from rlinf_isaac.ground.cache import cache_directory

IDENTITY = {"backend": "gymnasium-toy-1", "task": "flight", "assets": "ab", "image_size": 64}


def test_what_was_found_is_said_of_the_same_environment_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path))
    assert kept_findings(IDENTITY) == "not checked"
    keep_findings(IDENTITY, ["env-own-limit", "env-camera-still", "env-own-limit"], with_dataset=True)
    assert kept_findings(IDENTITY | {"image_size": 128}) == "env-camera-still, env-own-limit"
    for other in ({"assets": "cd"}, {"backend": "gymnasium-toy-2"}, {"task": "walk"}):
        assert kept_findings(IDENTITY | other) == "not checked"
    keep_findings(IDENTITY, [], with_dataset=True)
    assert kept_findings(IDENTITY) == "none"


def test_what_a_dataset_has_shown_stays_until_one_is_looked_at_again(monkeypatch, tmp_path):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path))
    keep_findings(IDENTITY, ["env-own-limit", "env-image-flipped"], with_dataset=True)
    keep_findings(IDENTITY, ["env-camera-still"], with_dataset=False)
    assert kept_findings(IDENTITY) == "env-camera-still, env-image-flipped"
    keep_findings(IDENTITY, [], with_dataset=True)
    assert kept_findings(IDENTITY) == "none"


def test_all_that_a_dataset_shows_is_known():
    source = Path(recorded.__file__).read_text() + Path(motions.__file__).read_text()
    codes = {code for code in re.findall(r'Problem\("(env-[a-z-]+)"', source) if "image" in code or "dataset" in code}
    assert codes <= {*OF_DATASET}
    assert {*re.findall(r'Problem\("(env-[a-z-]+)"', Path(recorded.__file__).read_text())} <= {*OF_DATASET}


def test_a_damaged_record_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path))
    keep_findings(IDENTITY, [], with_dataset=True)
    (file,) = cache_directory("conformance").iterdir()
    for text in ("", "[]", "{}", '{"codes": 3}'):
        file.write_text(text)
        assert kept_findings(IDENTITY) == "not checked"
    assert kept_findings({}) == "not checked"
