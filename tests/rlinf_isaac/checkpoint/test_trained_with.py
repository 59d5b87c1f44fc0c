from __future__ import annotations

from dataclasses import replace

import pytest
from support import small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.trained_with import NormStatsFile, mismatches
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.errors import NormStatsError


@pytest.fixture(scope="module")
def bundle(small_checkpoints):
    return read_bundle(small_checkpoints / "2")


def codes(problems):
    return [problem.code for problem in problems]


def test_the_job_it_was_trained_for_has_no_mismatch(bundle):
    stats = NormStatsFile(bundle.path / "norm_stats.json", bundle.norm_stats_bytes)
    environment = bundle.config["env"]
    assert mismatches(bundle, small_config()) == []
    assert mismatches(bundle, small_config(), norm_stats=stats, environment=environment) == []


def test_other_norm_stats_are_named_with_both_digests_and_places(bundle, tmp_path):
    path = tmp_path / "norm_stats.json"
    path.write_bytes(bundle.norm_stats_bytes.replace(b"0", b"1", 1))
    (problem,) = mismatches(bundle, small_config(), norm_stats=NormStatsFile.read(path))
    assert problem.code == "norm-stats-mismatch"
    for part in (bundle.path, path, bundle.lineage["norm_stats"], bytes_digest(path.read_bytes())):
        assert str(part) in problem.cause
    assert "--allow-mismatch" in problem.cure
    with pytest.raises(NormStatsError) as error:
        NormStatsFile.read(tmp_path / "nowhere.json")
    assert codes(error.value.problems) == ["norm-stats-missing"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("policy.action_chunk=4", ["action-chunk-mismatch"]),
        ("policy.state_layout=proprio", ["state-layout-mismatch"]),
        ("env.image_size=32", ["env-mismatch"]),
        ("env.backend=isaaclab", ["env-mismatch"]),
        ("env.task=stack3", ["prompt-mismatch", "state-layout-mismatch", "env-mismatch"]),
    ],
)
def test_what_the_policy_meets_must_be_what_it_met(bundle, override, expected):
    found = mismatches(bundle, small_config([override]))
    assert codes(found) == expected
    assert all(str(bundle.path) in problem.cause and "config.json" in problem.cause for problem in found)


def test_another_tokenizer_is_named_with_both_digests(bundle):
    config = bundle.config | {"tokenizer": bundle.config["tokenizer"] | {"sha256": "0" * 64}}
    (problem,) = mismatches(replace(bundle, config=config), small_config())
    assert problem.code == "tokenizer-mismatch"
    assert "0" * 64 in problem.cause
    assert bundle.config["tokenizer"]["sha256"] in problem.cause


def test_the_renderer_is_compared_once_the_environment_is_built(bundle):
    environment = bundle.config["env"]
    other = environment | {"renderer": "another"}
    assert codes(mismatches(bundle, small_config(), environment=other)) == ["env-mismatch"]


def test_another_simulator_is_one_mismatch_and_another_release_of_it_none(bundle):
    environment = bundle.config["env"]
    isaaclab = environment | {"backend": "isaaclab-3.0.0/newton_mjwarp/cpu", "renderer": "newton"}
    (problem,) = mismatches(bundle, small_config(["env.backend=isaaclab"]), environment=isaaclab)
    assert "trained in mujoco" in problem.cause
    assert "--env mujoco" in problem.cure
    assert mismatches(bundle, small_config(), environment=environment | {"backend": "mujoco-99.0"}) == []


def test_what_a_foreign_checkpoint_does_not_record_cannot_differ(bundle):
    config = {"job": bundle.config["job"], "env": None}
    assert mismatches(replace(bundle, config=config), small_config(["env.image_size=32"])) == []
