"""`rlinf_isaac.config.reads` against what the verbs read: each runs a small job while accesses to keys are recorded.

RLinf does not run here. Of its forms, what they share with the local engine is recorded there, and the rest is looked
for in the source. A GPU is not here either: what reads a key only there asks for the device first, and stops.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from reading import Reading, reading
from support import SHORT_EVALUATION, SMALL_PRESET, SMALL_RL, only_error, small_config

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config import build_config, flatten, known_keys
from rlinf_isaac.config.reads import FORMS, acts
from rlinf_isaac.engines.policies import compiles
from rlinf_isaac.ground.errors import InvalidJob

SMALL = ("--preset", SMALL_PRESET, "--output", "out")
RLINF = Path(__file__).parents[3] / "rlinf_isaac" / "engines" / "rlinf"
SHARED_WITH_RLINF = {
    "rlinf_isaac.engines.local.sft.batches.load_batch",
    "rlinf_isaac.engines.local.sft.update.flow_loss",
    "rlinf_isaac.engines.policies.make_processor",
}
CARRIED = ("env.", "policy.", "model.", "compute.")


def acting(form, config) -> set[str]:
    return {key for key in known_keys() if acts(form, key, config)}


def assert_read(form: str, found: Reading, config, carried: Path | None = None) -> None:
    """What acts in a job was read in it, and what was read can be set or is fixed.

    With `carried`, a bundle, putting a key there counts as reading it.
    """
    missing = acting(form, config) - set(found)
    if carried is not None:
        written, wanted = flatten(read_bundle(carried).job), flatten(config)
        assert all(key.startswith(CARRIED) and written[key] == wanted[key] for key in missing)
        missing = set()
    assert missing == set(), "said to be read, and not read"
    assert {key: found[key] for key in set(found) - acting(form, config)} == {}, "read, and refused"


def assert_read_on_rlinf(verb: str, found: Reading, config) -> None:
    """The same of ``--engine rlinf``, from the local engine's record and the source of the RLinf engine."""
    source = "".join(path.read_text() for path in RLINF.rglob("*.py"))
    local, there = acting(verb, config), acting(f"{verb} --engine rlinf", config)
    shared = {
        key
        for key, functions in found.items()
        if any(
            not each.startswith(("rlinf_isaac.engines.local", "rlinf_isaac.engines.policies"))
            or each in SHARED_WITH_RLINF
            for each in functions
        )
    }
    named = {key for key in there if re.search(rf"\.{key.rpartition('.')[2]}\b", source)}
    carried = {key for key in there if verb == "sft" and key.startswith(CARRIED)}
    assert there - shared - named - carried == set()
    # The device is handed to any simulator, and one in IsaacLab takes it.
    for key in local - there - {"compute.device"}:
        assert not re.search(rf"\b{re.escape(key)}\b", source), key


def run(invoke, *words) -> Reading:
    with reading() as found:
        result = invoke(*words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return found


def test_demos(invoke, monkeypatch):
    assert_read("demos", run(invoke, "demos", *SMALL, "--episodes", 1), small_config(["demos.episodes=1"]))

    monkeypatch.delenv("ISAACLAB_PYTHON", raising=False)
    config = small_config(["env.backend=isaaclab", "env.task=stack3"])
    from rlinf_isaac.engines.demonstrations import record_demonstrations

    with reading() as found, pytest.raises(InvalidJob, match="no-isaaclab-python"):
        list(record_demonstrations(config, Path("nowhere")))
    assert acts("demos", "compute.device", config)
    assert "compute.device" in found


def test_norm_stats(invoke, small_dataset, tmp_path):
    config = small_config()
    assert_read("norm_stats", run(invoke, "norm_stats", *SMALL, "--dataset", small_dataset), config)
    (stats,) = tmp_path.glob("out/norm_stats/*/norm_stats.json")
    check = ("norm_stats", *SMALL, "--check", stats)
    assert_read("norm_stats --check", run(invoke, *check), config)
    assert_read("norm_stats --check --dataset", run(invoke, *check, "--dataset", small_dataset), config)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sft(invoke, small_dataset, tmp_path, dtype):
    overrides = ["sft.steps=2", "sft.warmup_steps=1", f"compute.dtype={dtype}", "env.renderer=rays"]
    found = run(invoke, "sft", "--dataset", small_dataset, *SMALL, "--overrides", ",".join(overrides))
    (bundle,) = tmp_path.glob("out/sft/*/checkpoints/2")
    assert_read("sft", found, small_config(overrides), bundle)
    assert_read_on_rlinf("sft", found, small_config(overrides))


def test_eval(invoke, small_checkpoints):
    words = ("--ckpt-steps", 2, "--episodes", 1, "--output", "out", "--overrides", SHORT_EVALUATION)
    found = run(invoke, "eval", "--ckpt-root", small_checkpoints, *words)
    config = small_config([SHORT_EVALUATION, "eval.episodes=1"])
    assert_read("eval", found, config)
    assert_read_on_rlinf("eval", found, config)


@pytest.mark.parametrize(
    "chosen",
    [
        ["eval.videos=1", "rl.noise_steps=0", "rl.eval_interval=2", "rl.eval_episodes=2"],
        [
            *("rl.algorithm=grpo", "rl.group_size=2", "rl.exploration=flow_noise", "rl.reward=shaped"),
            *("rl.eval_interval=0", "eval.videos=0"),
        ],
    ],
    ids=["ppo", "grpo"],
)
def test_rl(invoke, small_checkpoints, chosen):
    small = [item for item in SMALL_RL if not item.startswith(("rl.noise_steps", "rl.eval_"))]
    overrides = [*small, *chosen, "eval.episodes=1"]
    words = ("--ckpt-steps", 2, "--output", "out", "--overrides", ",".join(overrides))
    found = run(invoke, "rl", "--ckpt-root", small_checkpoints, *words)
    assert_read("rl", found, small_config(overrides))
    assert_read_on_rlinf("rl", found, small_config(overrides))


def test_bundle_and_convert(invoke, small_checkpoints):
    source, config = small_checkpoints / "2", small_config(["policy.denoise_steps=1"])
    stats, changed = next(source.glob("*/norm_stats.json")), ("--overrides", "policy.denoise_steps=1")
    assert_read(
        "bundle make",
        run(invoke, "bundle", "make", source, *SMALL, "--name", "made", *changed),
        config,
        Path("out/bundles/made/2"),
    )
    words = ("--input", source, "--output", "made/2", "--preset", SMALL_PRESET, "--norm-stats", stats)
    assert_read("convert --preset", run(invoke, "convert", *words, *changed), config, Path("made/2"))


def test_serve(small_checkpoints, store):
    from mlflow_project.cli.serve import check
    from mlflow_project.serving.policy import ServedPolicy
    from rlinf_isaac.preflight import Findings

    with reading() as found:
        findings = Findings()
        checked = check(findings, str(small_checkpoints / "2"), "cpu")
        assert findings.errors == []
        ServedPolicy(*checked, max_batch=1, exact="false")
    assert set(FORMS["serve"].free) <= set(found)


def test_compiling_is_asked_for_only_on_a_gpu():
    for device, keys in (("cpu", {"compute.device"}), ("cuda:1", {"compute.device", "compute.compile"})):
        compute = build_config(flatten(small_config()), "test", [f"compute.device={device}"]).compute
        with reading() as found:
            assert compiles(compute) == (device != "cpu")
        assert set(found) == keys


UNREAD = {
    "main --rl-iterations 0": "rl.lr=1e-4",
    "main": "rl.group_size=2",
    "demos": "sft.lr=1",
    "norm_stats --dataset {dataset}": "policy.action_chunk=4",
    "norm_stats --check x --dataset {dataset}": "eval.episodes=3",
    "norm_stats --canonicalise x --norm-stats-mode canonical": "model.pi05=true",
    "sft --dataset {dataset}": "eval.episodes=5",
    "sft --dataset {dataset} --device cpu": "compute.compile=false",
    "eval --ckpt-root {checkpoints}": "rl.lr=1e-4",
    "eval --ckpt-root {checkpoints} --videos 0": "eval.video_size=64",
    "rl --ckpt-root {checkpoints}": "demos.noise=0",
    "rl --ckpt-root {checkpoints} --algorithm grpo": "rl.gamma=0.9",
    "bundle make {checkpoints}/2": "rl.lr=1e-4",
    "bundle verify {checkpoints}/2": "policy.denoise_steps=1",
    "convert --input {checkpoints}/2 --output converted": "model.pi05=true",
    "convert --input {checkpoints}/2 --output converted/2 --preset {preset} --norm-stats {stats}": "sft.lr=1",
}


@pytest.mark.parametrize("command", UNREAD)
def test_the_verb_refuses_it_before_anything_starts(invoke, small_dataset, small_checkpoints, tmp_path, command):
    before = sorted(tmp_path.rglob("*"))
    stats = next((small_checkpoints / "2").glob("*/norm_stats.json"))
    places = {"dataset": small_dataset, "checkpoints": small_checkpoints, "preset": SMALL_PRESET, "stats": stats}
    result = invoke(*command.format(**places).split(), "--overrides", UNREAD[command])
    only_error(result, "not-read")
    assert f"{UNREAD[command]}: {command.split(' {')[0].split(' --')[0]}" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_an_option_that_does_nothing_is_an_override_that_does_nothing(invoke):
    only_error(invoke("demos", "--device", "cuda"), "not-read")


def test_values_of_a_preset_are_no_overrides(invoke, small_dataset):
    Path("mine.yaml").write_text(f"{SMALL_PRESET.read_text()}rl: {{group_size: 3}}\ncompute: {{compile: false}}\n")
    result = invoke("norm_stats", "--dataset", small_dataset, "--preset", "mine.yaml")
    assert result.exit_code == 0, result.output
