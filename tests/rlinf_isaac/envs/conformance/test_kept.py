from __future__ import annotations

from rlinf_isaac.envs.conformance.kept import keep_findings, kept_findings
from rlinf_isaac.ground.cache import cache_directory

IDENTITY = {"backend": "gymnasium-toy-1", "task": "flight", "assets": "ab", "image_size": 64}


def test_what_was_found_is_said_of_the_same_environment_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path))
    assert kept_findings(IDENTITY) == "not checked"
    keep_findings(IDENTITY, ["env-own-limit", "env-camera-still", "env-own-limit"])
    assert kept_findings(IDENTITY | {"image_size": 128}) == "env-camera-still, env-own-limit"
    for other in ({"assets": "cd"}, {"backend": "gymnasium-toy-2"}, {"task": "walk"}):
        assert kept_findings(IDENTITY | other) == "not checked"
    keep_findings(IDENTITY, [])
    assert kept_findings(IDENTITY) == "none"


def test_a_damaged_record_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path))
    keep_findings(IDENTITY, [])
    (file,) = cache_directory("conformance").iterdir()
    for text in ("", "[]", "{}", '{"codes": 3}'):
        file.write_text(text)
        assert kept_findings(IDENTITY) == "not checked"
    assert kept_findings({}) == "not checked"
