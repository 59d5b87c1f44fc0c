"""250 faults in a bundle, each detected while its files are read: before torch is imported, let alone a model built."""

from __future__ import annotations

import random
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from support import small_config

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.description import foreign_config
from rlinf_isaac.checkpoint.header import INDEX_FILE
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.checkpoint.write_bundle import assemble_bundle, write_bundle
from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.pi0.layout import TIED
from rlinf_isaac.pi0.model import Pi0, initialise

NORM_STATS = b'{"norm_stats": {"state": {"mean": [0.5], "std": [2.0]}, "actions": {"mean": [0.0], "std": [1.0]}}}'


@pytest.fixture(scope="module")
def model() -> Pi0:
    model = Pi0(small_config().model)
    initialise(model, 0)
    return model


@pytest.fixture(params=["one file", "shards"])
def bundle(request, tmp_path, model) -> Bundle:
    """A whole pi0, as one file or as the hub's library splits it."""
    arguments = {
        "config": foreign_config(small_config()),
        "norm_stats": NORM_STATS,
        "asset_id": "RLinf/IsaacLab-Stack-Cube-Data",
        "step": 400,
        "lineage": {"dataset": "d" * 64, "parent": None},
    }
    if request.param == "one file":
        return write_bundle(tmp_path / "400", state_dict=model.state_dict(), **arguments)

    def write_weights(directory: Path) -> dict[str, str]:
        save_torch_state_dict(model.state_dict(), directory, max_shard_size="50KB")
        return dict(TIED)

    return assemble_bundle(tmp_path / "400", write_weights=write_weights, **arguments)


def flip(data: bytes, chooser: random.Random) -> bytes:
    damaged = bytearray(data)
    damaged[chooser.randrange(len(data))] ^= chooser.randrange(1, 256)
    return bytes(damaged)


def truncate(data: bytes, chooser: random.Random) -> bytes:
    return data[: chooser.randrange(len(data))]


def test_250_of_250_faults_are_detected(bundle):
    chooser = random.Random(0)
    files = sorted(file for file in bundle.path.rglob("*") if file.is_file())
    codes = Counter()
    for damage in [flip] * 200 + [truncate] * 50:
        file = chooser.choice(files)
        whole = file.read_bytes()
        file.write_bytes(damage(whole, chooser))
        with pytest.raises(BundleError) as error:
            read_bundle(bundle.path)
        file.write_bytes(whole)
        (problem,) = error.value.problems
        assert file.name in problem.cause
        codes[problem.code] += 1
    assert codes.total() == 250
    assert codes.keys() <= {"manifest-damaged", "manifest-version", "bundle-file-changed", "bundle-file-size"}
    assert read_bundle(bundle.path) == bundle


def test_faults_are_found_without_torch(bundle):
    file = max(bundle.path.glob("*.safetensors"))
    file.write_bytes(flip(file.read_bytes(), random.Random(0)))
    code = (
        "import sys\nfrom rlinf_isaac.checkpoint.bundle import read_bundle\n"
        f"try:\n    read_bundle({str(bundle.path)!r})\n"
        "except Exception as error:\n    print(error.problems[0].code, 'torch' in sys.modules)"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.split() == ["bundle-file-changed", "False"]


def test_it_loads(bundle, model):
    loaded = Pi0(small_config().model)
    load_weights(bundle, loaded)
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


def test_a_swapped_shard(bundle, tmp_path):
    """A shard of another checkpoint: same names, same shapes, same size."""
    file = min(bundle.path.glob("*.safetensors"))
    other = bytearray(file.read_bytes())
    other[-4:] = bytes(byte ^ 1 for byte in other[-4:])
    file.write_bytes(other)
    with pytest.raises(BundleError, match=rf"{file.name} is not the file that was sealed"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("bundle", ["shards"], indirect=True)
@pytest.mark.parametrize("file", ["a shard", INDEX_FILE])
def test_a_missing_shard_or_index(bundle, file):
    (bundle.path / INDEX_FILE if file == INDEX_FILE else max(bundle.path.glob("*.safetensors"))).unlink()
    with pytest.raises(BundleError) as error:
        read_bundle(bundle.path, verify=False)
    assert error.value.problems[0].code == "bundle-file-missing"


@pytest.mark.parametrize("bundle", ["shards"], indirect=True)
def test_modes_of_shards_are_those_of_the_other_files(bundle):
    modes = {stat.S_IMODE(file.stat().st_mode) for file in bundle.path.rglob("*") if file.is_file()}
    assert modes == {stat.S_IMODE((bundle.path / "config.json").stat().st_mode)}
