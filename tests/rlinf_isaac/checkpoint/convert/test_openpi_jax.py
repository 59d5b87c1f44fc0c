"""JAX checkpoints of OpenPI are read by tensorstore alone, made into bundles, and refused where parts are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus.foreign import dummy_config
from corpus.openpi_jax import save_jax_checkpoint, save_orbax, to_jax
from safetensors.torch import load_file

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.convert import Options, prepare, run
from rlinf_isaac.checkpoint.find_weights import find_weights
from rlinf_isaac.checkpoint.foreign.make import BundleContent, find_made, make_bundle, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import find_source
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.ground.errors import InvalidJob, WeightsError
from rlinf_isaac.pi0.layout import UNREAD
from rlinf_isaac.pi0.model import Pi0

pytest.importorskip("tensorstore")

LAYERS = "PaliGemma/llm/layers/"
NAMELESS = '{"tree_metadata": {"()": {"key_metadata": [], "value_metadata": {"value_type": "jax.Array"}}}}'


@pytest.fixture(scope="module", params=[False, True], ids=["pi0", "pi05"])
def config(request):
    return dummy_config(request.param, "model.vision.depth=2")


@pytest.fixture(scope="module")
def arrays(model) -> dict[str, np.ndarray]:
    return to_jax(model)


def make(path: Path, config, output: Path) -> Bundle:
    source = find_source(path, asset_id="droid")
    conversion = plan_conversion(source, config.model)
    arguments = {"asset_id": "droid", "step": 0, "norm_stats": source.norm_stats.read(), "norm_stats_record": {}}
    content = BundleContent(config=config, **arguments)
    bundle = make_bundle(conversion, content, output)
    assert find_made(conversion, content, output) == bundle
    return bundle


def holds(bundle: Bundle, config, wanted: dict[str, torch.Tensor]) -> bool:
    loaded = Pi0(config.model)
    load_weights(bundle, loaded)
    found = loaded.state_dict()
    assert not found[UNREAD[0]].any()
    return all(torch.equal(found[name], tensor) for name, tensor in wanted.items() if name not in UNREAD)


def refusal(path: Path, config=None) -> tuple[str, str]:
    with pytest.raises(InvalidJob) as error:
        plan_conversion(find_source(path, asset_id="droid"), (config or dummy_config(False)).model)
    (problem,) = error.value.problems
    return problem.code, problem.cause


@pytest.mark.parametrize("stored", [{"value": True}, {"ocdbt": False}, {"zarr3": True, "chunked": True}], ids=str)
def test_a_bundle_holds_the_model_under_openpis_names(tmp_path, config, model, arrays, stored):
    path = save_jax_checkpoint(tmp_path / "pi0 base#1?%20", arrays, "droid", "trossen", **stored)
    source = find_source(path, asset_id="droid")
    assert (source.kind, source.asset_id, source.weights.format) == ("openpi", "droid", "jax")
    assert source == find_source(path / "params", asset_id="droid")
    assert find_weights(path / "params/_METADATA")[0] == source.weights
    bundle = make(path, config, tmp_path / "out/0")
    assert holds(bundle, config, model.state_dict())
    assert bundle.config["source"]["layout"] == "openpi_jax"
    assert bundle.config["source"]["files"].keys() == {
        file.relative_to(path).as_posix() for file in (path / "params").rglob("*") if file.is_file()
    }
    assert bundle.config["source"]["said"]["values"]["policy.norm"]["value"] == "auto"


def test_layers_that_share_a_chunk_without_room_to_put_them_aside(tmp_path, config, model, arrays, monkeypatch):
    path = save_jax_checkpoint(tmp_path / "base", arrays, "droid")
    monkeypatch.setattr("rlinf_isaac.checkpoint.convert.orbax._MARGIN", 1 << 60)
    assert holds(make(path, config, tmp_path / "out/0"), config, model.state_dict())


def test_bfloat16_stays(tmp_path, config, arrays):
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    path = save_jax_checkpoint(tmp_path / "base", {k: v.astype(bfloat16) for k, v in arrays.items()}, "droid")
    stored = load_file(make(path, config, tmp_path / "out/0").path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    gates = torch.from_numpy(arrays[f"{LAYERS}mlp_1/gating_einsum"]).bfloat16()
    for number, name in enumerate(("gate", "up")):
        found = stored[f"paligemma_with_expert.gemma_expert.model.layers.3.mlp.{name}_proj.weight"]
        assert torch.equal(found, gates[3, number].T)


def test_lora_is_merged(tmp_path, config, model, arrays):
    """Against the sums that OpenPI's einsums form; in the output of attention the heads are summed before."""
    random = np.random.default_rng(0)
    more, merged = {}, dict(arrays)
    for path, einsum in (
        ("attn/q_einsum_1", "...dr,...rh->...dh"),
        ("attn/kv_einsum", "...dr,...rh->...dh"),
        ("attn/attn_vec_einsum_1", "lnhr,lmrd->lnhd"),
    ):
        *outer, rows, columns = arrays[f"{LAYERS}{path}/w"].shape
        a, b = random.normal(size=(*outer, rows, 3)), random.normal(size=(*outer, 3, columns))
        more |= {f"{LAYERS}{path}/lora_a": a.astype("f4"), f"{LAYERS}{path}/lora_b": b.astype("f4")}
        merged[f"{LAYERS}{path}/w"] = (arrays[f"{LAYERS}{path}/w"] + np.einsum(einsum, a, b)).astype("f4")
    for name in ("gating_einsum", "linear"):
        *outer, rows, columns = arrays[f"{LAYERS}mlp/{name}"].shape
        a, b = random.normal(size=(*outer, rows, 2)), random.normal(size=(*outer, 2, columns))
        more |= {f"{LAYERS}mlp/{name}_lora_a": a.astype("f4"), f"{LAYERS}mlp/{name}_lora_b": b.astype("f4")}
        merged[f"{LAYERS}mlp/{name}"] = (arrays[f"{LAYERS}mlp/{name}"] + a @ b).astype("f4")
    tuned = make(save_jax_checkpoint(tmp_path / "lora", arrays | more, "droid"), config, tmp_path / "a/0")
    plain = make(save_jax_checkpoint(tmp_path / "plain", merged, "droid"), config, tmp_path / "b/0")
    found, wanted = (load_file(bundle.path / "model.safetensors") for bundle in (tuned, plain))
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)
    assert tuned.config["source"]["notes"] == [
        "5 LoRA adapters are merged into their weights, with OpenPI's scale of 1"
    ]


@pytest.mark.parametrize("factors", [{"a": (4, 8, 64, 2)}, {"a": (4, 8, 64, 2), "b": (4, 8, 3, 16)}], ids=str)
def test_lora_that_does_not_fit_is_not_left_out(tmp_path, config, arrays, factors):
    more = {f"{LAYERS}attn/q_einsum/lora_{name}": np.ones(shape, np.float32) for name, shape in factors.items()}
    code, cause = refusal(save_jax_checkpoint(tmp_path / "base", arrays | more, "droid"), config)
    assert code == "weights-keys"
    assert all(name in cause for name in more)
    assert f"{len(more)} unexpected" in cause


def test_converting_the_files_alone(tmp_path, model, arrays):
    path = save_orbax(tmp_path / "params", arrays)
    record = run(prepare(path, tmp_path / "out", Options(dtype="bf16")))
    assert record["source"]["format"] == "jax"
    assert record["verified"]
    stored = load_file(tmp_path / "out/model.safetensors")
    name = "paligemma_with_expert.paligemma.model.language_model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(stored[name], model.state_dict()[name].bfloat16())


def test_two_kinds_of_weights_in_one_place(tmp_path, arrays):
    path = save_jax_checkpoint(tmp_path / "base", arrays, "droid")
    (path / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    assert refusal(path)[0] == "ambiguous-weights"
    found = find_source(path, weights=path / "params", asset_id="droid")
    assert found.weights.format == "jax"
    assert found.asset_id == "droid"


class TestIncomplete:
    """Whole until one thing is missing or wrong."""

    @pytest.fixture
    def path(self, tmp_path) -> Path:
        return save_jax_checkpoint(tmp_path / "base", {"action_in_proj/kernel": np.zeros((2, 3), "f4")}, "droid")

    def test_no_metadata(self, path):
        (path / "params/_METADATA").unlink()
        code, cause = refusal(path)
        assert code == "jax-checkpoint"
        assert cause.startswith(f"{path}/params lacks _METADATA")

    def test_empty(self, tmp_path):
        (tmp_path / "params").mkdir()
        assert refusal(tmp_path) == (
            "jax-checkpoint",
            f"{tmp_path}/params is empty: it is not a complete orbax checkpoint",
        )

    def test_no_params(self, tmp_path):
        (tmp_path / "_CHECKPOINT_METADATA").write_text("{}")
        assert "has no params/" in refusal(tmp_path)[1]

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"tree_metadata": 3}', '{"tree_metadata": {"a": {}}}', NAMELESS])
    def test_metadata_that_is_none(self, path, text):
        (path / "params/_METADATA").write_text(text)
        code, cause = refusal(path)
        assert code == "jax-checkpoint"
        assert "_METADATA is not as orbax writes it" in cause

    def test_no_arrays(self, path):
        (path / "params/_METADATA").write_text('{"tree_metadata": {}}')
        assert refusal(path)[0] == "empty-weights"

    def test_an_array_that_is_not_there(self, path):
        text = (path / "params/_METADATA").read_text().replace("kernel", "colonel")
        (path / "params/_METADATA").write_text(text)
        code, cause = refusal(path)
        assert code == "jax-checkpoint"
        assert "names params.action_in_proj.colonel, which cannot be read: NOT_FOUND" in cause
        assert "tensorstore_spec" not in cause

    def test_an_array_larger_than_any(self, tmp_path):
        path = save_jax_checkpoint(tmp_path / "large", {"a/b": np.zeros((2, 3), "f4")}, "droid", ocdbt=False)
        (metadata,) = path.rglob(".zarray")
        metadata.write_text(metadata.read_text().replace('"shape":[2,3]', '"shape":[1099511627776,3]'))
        code, cause = refusal(path)
        assert code == "jax-checkpoint"
        assert "larger than any array of a model" in cause

    def test_a_name_that_leads_elsewhere(self, path):
        text = (path / "params/_METADATA").read_text().replace('"key": "params"', '"key": "../assets"')
        (path / "params/_METADATA").write_text(text)
        (path / "params/manifest.ocdbt").unlink()
        assert "it is not the name of a directory" in refusal(path)[1]

    def test_no_database(self, path):
        (path / "params/manifest.ocdbt").unlink()
        assert refusal(path)[0] == "jax-checkpoint"

    def test_a_fifo(self, path):
        os.mkfifo(path / "params/d/pipe")
        assert refusal(path)[1].endswith("is not a regular file")

    def test_a_model_that_is_none_of_these(self, path):
        code, cause = refusal(path)
        assert code == "weights-keys"
        assert "missing" in cause


@pytest.mark.parametrize("ocdbt", [True, False])
def test_a_chunk_that_is_missing_does_not_become_zeros(tmp_path, config, arrays, ocdbt):
    path = save_jax_checkpoint(tmp_path / "base", arrays, "droid", ocdbt=ocdbt)
    if ocdbt:
        for file in (path / "params/d").iterdir():
            file.write_bytes(file.read_bytes()[:-40])
    else:
        (path / "params/params.action_in_proj.kernel/0.0").unlink()
    with pytest.raises(WeightsError) as error:
        make(path, config, tmp_path / "out/0")
    assert error.value.problems[0].code == "jax-checkpoint"
    assert not (tmp_path / "out/0").exists()


def test_only_tensorstore_is_imported(tmp_path, config, arrays):
    path = save_jax_checkpoint(tmp_path / "base", arrays, "droid")
    code = (
        "import sys\nfrom rlinf_isaac.checkpoint.convert.read import read_stored\n"
        "from rlinf_isaac.checkpoint.find_weights import find_weights\n"
        f"found, _ = find_weights({str(path)!r})\nprint('tensorstore' in sys.modules)\nread_stored(found)\n"
        "print([name for name in ('tensorstore', 'torch', 'jax', 'orbax') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "['tensorstore']"]


def test_without_tensorstore_it_says_what_to_install(tmp_path, arrays, monkeypatch):
    path = save_jax_checkpoint(tmp_path / "base", {"a/b": np.ones(2, "f4")}, "droid")
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(WeightsError) as error:
        plan_conversion(find_source(path), dummy_config(False).model)
    (problem,) = error.value.problems
    assert problem.code == "no-tensorstore"
    assert "pip install 'rlinf-isaac[jax]'" in problem.cure
