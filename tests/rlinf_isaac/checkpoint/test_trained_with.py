from __future__ import annotations

from dataclasses import asdict, replace

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


TASK = """
name: cup
prompt: Stack the red block on the blue block.
control_hz: 20
cameras: {base_0_rgb: {dataset: observation.images.front, env: pixels}}
state: {dims: 23, env: agent_pos}
action: {dims: 7, clip: [-1, 1]}
env: {kind: gymnasium, make: Cup-v0, max_steps: 80}
"""


@pytest.fixture
def cup(tmp_path):
    path = tmp_path / "cup.yaml"
    path.write_text(TASK)
    return path


def trained_for(bundle, config):
    """The bundle as if the job of `config` had trained it."""
    env = {"backend": "gymnasium-cups-1.0", "task": config.env.task, "renderer": "own", "image_size": 48}
    own = {"job": asdict(config), "state_names": None, "action_names": None, "env": env}
    return replace(bundle, config=bundle.config | own)


def test_a_policy_of_one_task_is_refused_in_another_with_the_fields_that_differ(bundle, cup):
    other = small_config([f"env.task={cup}"])
    for there, job in ((bundle, other), (trained_for(bundle, other), small_config())):
        (problem,) = mismatches(there, job)
        assert problem.code == "task-mismatch"
        assert "--allow-mismatch" in problem.cure
        for field in ("name", "cameras.left_wrist_0_rgb.dataset", "action.clip", "env.kind", "env.max_steps"):
            assert f"\n  {field}: " in problem.cause
        assert "control_hz" not in problem.cause


def test_the_task_it_was_trained_for_has_no_mismatch_wherever_its_file_is(bundle, cup, tmp_path):
    trained = trained_for(bundle, small_config([f"env.task={cup}"]))
    moved = tmp_path / "elsewhere.yaml"
    cup.rename(moved)
    assert mismatches(trained, small_config([f"env.task={moved}"])) == []
    assert mismatches(trained, small_config([f"env.task={moved}"]), environment=trained.config["env"]) == []
    moved.write_text(TASK.replace("max_steps: 80", "max_steps: 160"))
    (problem,) = mismatches(trained, small_config([f"env.task={moved}"]))
    assert "\n  env.max_steps: 80 there, 160 here" in problem.cause


def test_another_image_size_of_a_task_is_seen_when_its_environment_is_built(bundle, cup):
    trained = trained_for(bundle, small_config([f"env.task={cup}"]))
    built = trained.config["env"] | {"image_size": 64}
    assert codes(mismatches(trained, small_config([f"env.task={cup}"]), environment=built)) == ["env-mismatch"]


def test_images_that_are_no_squares_are_compared_camera_by_camera(bundle, cup):
    trained, config = trained_for(bundle, small_config([f"env.task={cup}"])), small_config([f"env.task={cup}"])
    sizes = {"images": {"top": [24, 32], "wrist": [48, 48]}}
    trained = replace(trained, config={key: each for key, each in trained.config.items() if key != "env"} | sizes)
    built = {"backend": "gymnasium-cups-1.0", "image_size": 48, "image_shapes": {"top": (24, 32)}}
    assert mismatches(trained, config, environment=built) == []
    (problem,) = mismatches(trained, config, environment=built | {"image_shapes": {"top": (32, 24)}})
    assert problem.code == "image-size-mismatch"
    assert "top images of 32 x 24 pixels (its config.json), the environment renders 24 x 32" in problem.cause
    assert "env.options" in problem.cure


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
