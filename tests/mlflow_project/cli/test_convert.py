from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file
from support import SHORT_EVALUATION, SMALL, kill_when, only_error, rows_of

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config import build_config
from rlinf_isaac.pi0.model import Pi0

OVERRIDES = ",".join(SMALL)
STATE = {"_fsdp_wrapped_module.a.weight": torch.arange(6.0).reshape(2, 3), "_fsdp_wrapped_module.b": torch.tensor(2)}


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "full_weights.pt"
    torch.save({"model": STATE, "optimizer": {"lr": 0.1}}, path)
    return path


def test_a_torch_file_becomes_safetensors(invoke, store, weights):
    result = invoke("convert", "--input", weights, "--output", "converted", "--dtype", "bf16")
    assert result.exit_code == 0, result.output
    tensors = load_file("converted/model.safetensors")
    assert torch.equal(tensors["a.weight"], STATE["_fsdp_wrapped_module.a.weight"].bfloat16())
    assert torch.equal(tensors["b"], torch.tensor(2))
    for fact in (
        "state dict   model",
        "stripped     _fsdp_wrapped_module",
        "1 F32 -> BF16",
        "every tensor is that of the",
    ):
        assert fact in result.stdout
    assert "convert      " in result.stderr
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert (run.info.run_name, run.info.status) == ("convert converted", "FINISHED")
    assert "conversion.json" in {file.path for file in client.list_artifacts(run.info.run_id)}
    assert run.data.metrics["convert/tensors"] == 2
    assert run.data.params["options/dtype"] == "bf16"


def test_a_dry_run_writes_nothing(invoke, store, weights):
    result = invoke("convert", "--input", weights, "--output", "converted", "--max-shard-size", "20B", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "model-00002-of-00002.safetensors" in result.stdout
    assert not Path("converted").exists()
    assert MlflowClient(store).get_experiment_by_name("rlinf-isaac") is None


def test_options(invoke, store, weights):
    options = (
        "--include",
        "w*,b",
        "--exclude",
        "b",
        "--strip-prefix",
        "a.",
        "--verify",
        "false",
        "--hash-source",
        "false",
    )
    result = invoke("convert", "--input", weights, "--output", "converted", *options)
    assert result.exit_code == 0, result.output
    assert load_file("converted/model.safetensors").keys() == {"weight"}
    record = json.loads(Path("converted/conversion.json").read_bytes())
    assert record["verified"] is False
    assert record["source"]["files"]["full_weights.pt"]["sha256"] is None


def test_all_problems_at_once_and_nothing_written(invoke, store, weights):
    Path("there").mkdir()
    options = ("--max-shard-size", "big", "--include", "x", "--preset", "tinny")
    result = invoke("convert", "--input", weights, "--output", "there", *options)
    assert result.exit_code == 2
    codes = {line.split()[1] for line in result.stderr.splitlines() if line.startswith("error ")}
    assert codes == {"bad-size", "output-exists", "include-matches-nothing", "empty-weights", "bundle-options"}
    assert list(Path("there").iterdir()) == []
    assert MlflowClient(store).get_experiment_by_name("rlinf-isaac") is None


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_code_is_never_run(invoke, store):
    torch.save({"w": torch.ones(1), "x": Bomb()}, "bomb.pt")
    result = invoke("convert", "--input", "bomb.pt", "--output", "converted")
    only_error(result, "unsafe-pickle")
    assert "posix.mkdir" in result.stderr
    assert not Path("pwned").exists()


def test_damage_is_found_while_converting(invoke, store, weights):
    data = bytearray(weights.read_bytes())
    data[data.index(STATE["_fsdp_wrapped_module.a.weight"].numpy().tobytes())] ^= 1
    weights.write_bytes(data)
    only_error(invoke("convert", "--input", weights, "--output", "converted"), "damaged-torch-file")
    assert not Path("converted").exists()


def test_interrupted(start, store):
    torch.save({f"w{number}": torch.zeros(2**24) for number in range(4)}, "large.pt")
    process = start("convert", "--input", "large.pt", "--output", "converted")
    kill_when(process, "convert  ", number=2)
    assert process.returncode == 130
    assert not Path("converted").exists()
    assert not [name for name in os.listdir() if "tmp-" in name]


def test_a_converted_bundle_evaluates_like_the_original(invoke, store, small_checkpoints, tmp_path):
    original = read_bundle(small_checkpoints / "4")
    model = Pi0(build_config(original.config["job"], "test").model)
    load_weights(original, model)
    wrapped = {f"_fsdp_wrapped_module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": wrapped}, "full_weights.pt")
    Path("norm_stats.json").write_bytes(original.norm_stats_bytes)
    options = ("--norm-stats", "norm_stats.json", "--preset", "tiny", "--overrides", OVERRIDES)
    result = invoke("convert", "--input", "full_weights.pt", "--output", "bundles/4", *options)
    assert result.exit_code == 0, result.output
    made = read_bundle("bundles/4")
    assert made.weights_digest == original.weights_digest
    assert made.manifest.tied == original.manifest.tied

    rows = {}
    for name, root in {"original": small_checkpoints, "converted": Path("bundles")}.items():
        evaluation = ("--ckpt-steps", "4", "--episodes", "3", "--output", name, "--overrides", SHORT_EVALUATION)
        result = invoke("eval", "--ckpt-root", root, *evaluation)
        assert result.exit_code == 0, result.output
        rows[name] = [{**row, "checkpoint": None, "video": None} for row in rows_of(tmp_path / name)]
    assert len(rows["original"]) == 3
    assert rows["converted"] == rows["original"]


def test_a_bundle_in_bf16_and_shards(invoke, store, small_checkpoints):
    source = small_checkpoints / "4"
    stats = next(source.glob("*/norm_stats.json"))
    options = ("--norm-stats", stats, "--preset", "tiny", "--overrides", OVERRIDES, "--dtype", "bf16")
    result = invoke("convert", "--input", source, "--output", "out/7", *options, "--max-shard-size", "50KB")
    assert result.exit_code == 0, result.output
    made = read_bundle("out/7")
    assert made.manifest.dtypes.keys() == {"BF16"}
    assert made.lineage["parent"] == read_bundle(source).digest
    assert len(list(made.path.glob("model-*.safetensors"))) > 2


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("weights-keys", ("--preset", "tiny", "--overrides", f"{OVERRIDES},model.pi05=true")),
        ("no-norm-stats", ("--preset", "tiny", "--norm-stats", "nowhere.json")),
        ("bundle-options", ("--preset", "none")),
        ("no-step", ("--output", "out/bundle")),
        ("unknown-preset", ("--preset", "tinny")),
    ],
)
def test_bundles_that_cannot_be(invoke, store, small_checkpoints, tmp_path, code, options):
    stats = next((small_checkpoints / "4").glob("*/norm_stats.json"))
    (tmp_path / "x").mkdir()
    source = tmp_path / "x" / "model.safetensors"
    source.write_bytes((small_checkpoints / "4" / "model.safetensors").read_bytes())
    before = ("--output", "out/4", "--preset", "tiny", "--norm-stats", stats, "--overrides", OVERRIDES)
    only_error(invoke("convert", "--input", source, *before, *options), code)
    assert not Path("out").exists()
