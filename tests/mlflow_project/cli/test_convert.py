from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file
from support import SHORT_EVALUATION, SMALL_PRESET, kill_when, only_error, rows_of

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config import build_config
from rlinf_isaac.pi0.model import Pi0

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
    assert "convert " in result.stderr
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


def refused_as_it_is(invoke, *arguments) -> None:
    """The output is of something else."""
    before = {path: path.read_bytes() for path in Path().rglob("*.safetensors")}
    only_error(invoke("convert", *arguments), "output-exists")
    assert {path: path.read_bytes() for path in Path().rglob("*.safetensors")} == before


def test_its_own_output_is_recognised_and_nothing_else(invoke, store, weights, tmp_path):
    arguments = ("--input", weights, "--output", "converted", "--dtype", "bf16")
    assert invoke("convert", *arguments).exit_code == 0
    written = {path: path.stat().st_mtime_ns for path in Path("converted").iterdir()}
    for more in ((), ("--verify", "false")):  # it has been verified, and more than is asked for is fine
        again = invoke("convert", *arguments, *more)
        assert again.exit_code == 0, again.output
        assert "whole: this command has made it before" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in Path("converted").iterdir()} == written
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert {len(client.list_artifacts(run.info.run_id)) for run in runs} == {1}

    for other in (("--dtype", "fp16"), ("--hash-source", "false"), ("--max-shard-size", "8B"), ("--exclude", "b")):
        refused_as_it_is(invoke, *arguments, *other)
    torch.save({"model": {**STATE, "_fsdp_wrapped_module.b": torch.tensor(3)}, "optimizer": {"lr": 0.1}}, "other.pt")
    weights.rename(tmp_path / "kept.pt")
    Path("other.pt").rename(weights)  # of the same size, with the same names
    refused_as_it_is(invoke, *arguments)
    (tmp_path / "kept.pt").rename(weights)
    Path("converted/more").touch()
    refused_as_it_is(invoke, *arguments)
    Path("converted/more").unlink()
    file = Path("converted/model.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    refused_as_it_is(invoke, *arguments)


def test_the_values_are_compared_where_no_digest_says_them(invoke, store):
    """Two state dicts of one file, alike in everything but their values."""
    torch.save({"model": {"w": torch.zeros(4)}, "ema_m": {"w": torch.ones(4)}}, "two.pt")
    arguments = ("--input", "two.pt", "--output", "converted", "--verify", "false", "--hash-source", "false")
    assert invoke("convert", *arguments, "--state-dict-key", "model").exit_code == 0
    refused_as_it_is(invoke, *arguments, "--state-dict-key", "ema_m")
    assert invoke("convert", *arguments, "--state-dict-key", "model").exit_code == 0


def test_all_problems_at_once_and_nothing_written(invoke, store, weights):
    Path("there").mkdir()
    options = ("--max-shard-size", "big", "--include", "x", "--preset", "tinny")
    result = invoke("convert", "--input", weights, "--output", "there", *options)
    assert result.exit_code == 2
    codes = {line.split()[1] for line in result.stderr.splitlines() if line.startswith("error ")}
    assert codes == {"bad-size", "output-exists", "include-matches-nothing", "empty-weights", "bundle-options"}
    assert list(Path("there").iterdir()) == []
    assert MlflowClient(store).get_experiment_by_name("rlinf-isaac") is None


def test_few_bytes_that_become_many_are_told_before_they_are_written(invoke, store):
    torch.save({"w": torch.zeros(1).expand(2**20, 4), "scaled": torch.zeros(8).to(torch.float8_e4m3fn)}, "w.pt")
    options = ("--output", "converted", "--dtype", "bf16")
    result = invoke("convert", "--input", "w.pt", *options, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "warning expanded-tensors 4 stored bytes become 0.00839 GB" in result.stderr
    assert "not cast     1 F8_E4M3, whose scales lie elsewhere" in result.stdout
    result = invoke("convert", "--input", "w.pt", *options)
    assert result.exit_code == 0, result.output
    assert load_file("converted/model.safetensors")["w"].shape == (2**20, 4)
    torch.save({"w": torch.zeros(1).expand(2**50)}, "w.pt")
    refused = invoke("convert", "--input", "w.pt", "--output", "again")
    only_error(refused, "disk-space")
    assert "4 stored bytes become 4.5e+06 GB" in refused.stderr


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
    kill_when(process, "check ", number=2)
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
    options = ("--norm-stats", "norm_stats.json", "--preset", SMALL_PRESET)
    result = invoke("convert", "--input", "full_weights.pt", "--output", "bundles/4", *options)
    assert result.exit_code == 0, result.output
    made = read_bundle("bundles/4")
    assert made.weights_digest == original.weights_digest
    assert made.manifest.tied == original.manifest.tied

    rows = {}
    for name, root in {"original": small_checkpoints, "converted": Path("bundles")}.items():
        evaluation = ("--ckpt-steps", "4", "--episodes", "3", "--output", name, "--overrides", SHORT_EVALUATION)
        result = invoke("eval", "--ckpt-root", root, "--assume", "all", *evaluation)
        assert result.exit_code == 0, result.output
        rows[name] = [{**row, "checkpoint": None, "video": None} for row in rows_of(tmp_path / name)]
    assert len(rows["original"]) == 3
    assert rows["converted"] == rows["original"]


def test_a_bundle_in_bf16_and_shards(invoke, store, small_checkpoints):
    source = small_checkpoints / "4"
    stats = next(source.glob("*/norm_stats.json"))
    options = ("--norm-stats", stats, "--preset", SMALL_PRESET, "--dtype", "bf16")
    result = invoke("convert", "--input", source, "--output", "out/7", *options, "--max-shard-size", "50KB")
    assert result.exit_code == 0, result.output
    made = read_bundle("out/7")
    assert made.manifest.dtypes.keys() == {"BF16"}
    assert made.lineage["parent"] == read_bundle(source).digest
    assert len(list(made.path.glob("model-*.safetensors"))) > 2

    arguments = ("--input", source, "--output", "out/7", *options, "--max-shard-size", "50KB")
    again = invoke("convert", *arguments)
    assert (again.exit_code, "this command has made it before" in again.stdout) == (0, True), again.output
    for other in (("--max-shard-size", "60KB"), ("--dtype", "fp16"), ("--overrides", "env.max_episode_steps=160")):
        refused_as_it_is(invoke, *arguments, *other)


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("weights-keys", ("--overrides", "model.pi05=true")),
        ("no-norm-stats", ("--norm-stats", "nowhere.json")),
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
    before = ("--output", "out/4", "--preset", SMALL_PRESET, "--norm-stats", stats)
    only_error(invoke("convert", "--input", source, *before, *options), code)
    assert not Path("out").exists()
