from __future__ import annotations

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, load_model, save_file, save_model

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.header import read_header
from rlinf_isaac.checkpoint.weights import load_weights, save_weights
from rlinf_isaac.config import load_config
from rlinf_isaac.ground.errors import BundleError, WeightsError
from rlinf_isaac.pi0.model import Pi0, initialise

TIE = {"model.embed_tokens.weight": "lm_head.weight"}


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def untied(model: torch.nn.Module) -> torch.nn.Module:
    model.model["embed_tokens"].weight = torch.nn.Parameter(torch.zeros(5, 3))
    return model


class TestLoad:
    @pytest.fixture
    def source(self, tiny_model):
        return tiny_model(seed=1)

    @pytest.fixture
    def bundle(self, tmp_path, make_bundle, source):
        return make_bundle(tmp_path / "400", state_dict=source.state_dict())

    def test_a_bundle_or_its_path(self, bundle, source, tiny_model):
        for argument in (bundle, bundle.path, str(bundle.path)):
            model = tiny_model(seed=2)
            load_weights(argument, model)
            assert equal(model, source)

    def test_tied_parameters_stay_one(self, bundle, tiny_model):
        model = tiny_model(seed=2)
        load_weights(bundle, model)
        assert model.lm_head.weight is model.model["embed_tokens"].weight

    def test_a_lost_tie_is_restored(self, bundle, source, tiny_model):
        model = untied(tiny_model(seed=2))
        load_weights(bundle, model)
        assert model.lm_head.weight is model.model["embed_tokens"].weight
        assert equal(model, source)

    def test_parameters_are_filled_in_place(self, bundle, tiny_model):
        model = tiny_model(seed=2)
        before = [(id(parameter), parameter.data_ptr()) for parameter in model.parameters()]
        load_weights(bundle, model)
        assert [(id(parameter), parameter.data_ptr()) for parameter in model.parameters()] == before

    def test_the_models_dtype_stays(self, bundle, source, tiny_model):
        model = tiny_model(seed=2).bfloat16()
        load_weights(bundle, model)
        assert model.lm_head.weight.dtype == torch.bfloat16
        assert equal(model, source.bfloat16())

    def test_a_meta_model_after_to_empty(self, bundle, source, tiny_model):
        with torch.device("meta"):
            model = tiny_model(seed=2)
        with pytest.raises(WeightsError, match="to_empty"):
            load_weights(bundle, model)
        load_weights(bundle, model.to_empty(device="cpu"))
        assert equal(model, source)
        assert model.lm_head.weight is model.model["embed_tokens"].weight

    def test_weights_in_shards(self, tmp_path, source, tiny_model):
        save_torch_state_dict(source.state_dict(), tmp_path, max_shard_size=60)
        model = tiny_model(seed=2)
        load_weights(tmp_path, model)
        assert equal(model, source)

    def test_wrapped_names(self, tmp_path, source, tiny_model):
        wrapped = torch.nn.DataParallel(source)
        save_weights(tmp_path / "model.safetensors", wrapped.state_dict())
        model = tiny_model(seed=2)
        load_weights(tmp_path, model)
        assert equal(model, source)

    def test_a_bundle_read_without_hashing_is_hashed_before_it_is_loaded(self, bundle, tiny_model):
        file = bundle.path / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BundleError, match="sha256 differs"):
            load_weights(read_bundle(bundle.path, verify=False), tiny_model())

    def test_tied_names_stored_twice_must_agree(self, tmp_path, source, tiny_model):
        stored = {name: tensor.clone() for name, tensor in source.state_dict().items()}
        save_file(stored, tmp_path / "model.safetensors")
        model = tiny_model(seed=2)
        load_weights(tmp_path, model)
        assert equal(model, source)
        stored["model.embed_tokens.weight"][0, 0] += 1
        save_file(stored, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match="but the model ties them"):
            load_weights(tmp_path, model)

    @pytest.mark.parametrize("change", ["missing", "unexpected", "shape", "dtype", "nothing matches", "twins"])
    def test_a_refused_checkpoint_leaves_the_model_unchanged(self, tmp_path, source, tiny_model, change):
        stored = {name: tensor.clone() for name, tensor in source.state_dict().items()}
        if change == "missing":
            del stored["model.norm.bias"]
        elif change == "unexpected":
            stored["value_head.weight"] = torch.ones(1)
        elif change == "shape":
            stored["model.norm.bias"] = torch.ones(3, 1)
        elif change == "dtype":
            stored["model.norm.bias"] = torch.ones(3, dtype=torch.int64)
        elif change == "nothing matches":
            stored = {f"other.{name}": tensor for name, tensor in stored.items()}
        else:
            stored["lm_head.weight"] += 1
        save_file(stored, tmp_path / "model.safetensors")
        model = tiny_model(seed=2)
        with pytest.raises(WeightsError):
            load_weights(tmp_path, model)
        assert equal(model, tiny_model(seed=2))


class TestSave:
    def test_equal_input_gives_equal_bytes(self, tmp_path, tiny_model):
        for name in ("a", "b"):
            state_dict = tiny_model().state_dict()
            save_weights(tmp_path / name, dict(reversed(state_dict.items())) if name == "b" else state_dict)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_ties_are_returned(self, tmp_path, tiny_model):
        assert save_weights(tmp_path / "w", tiny_model().state_dict()) == TIE

    def test_equal_values_are_no_tie(self, tmp_path):
        assert save_weights(tmp_path / "w", {"a": torch.ones(3), "b": torch.ones(3)}) == {}
        assert read_header(tmp_path / "w").keys() == {"a", "b"}

    def test_views_transposes_slices_and_empty_tensors_keep_their_values(self, tmp_path):
        fused = torch.arange(24.0).reshape(6, 4)
        tensors = {
            "first": fused[:3],
            "second": fused[3:],
            "overlap": fused[2:5],
            "transposed": fused.T,
            "column": fused[:, 1],
            "expanded": torch.ones(1).expand(5),
            "scalar": torch.tensor(7),
            "empty": torch.zeros(0, 3),
            "also empty": torch.zeros(0, 3),
        }
        assert save_weights(tmp_path / "w", tensors) == {}
        stored = load_file(tmp_path / "w")
        assert stored.keys() == tensors.keys()
        assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.complex64, torch.bool, torch.uint16])
    def test_dtypes(self, tmp_path, dtype):
        tensor = torch.tensor([0, 1, 1]).to(dtype)
        save_weights(tmp_path / "w", {"w": tensor})
        assert torch.equal(load_file(tmp_path / "w")["w"].to(torch.complex64), tensor.to(torch.complex64))

    def test_nan_in_an_8_bit_float(self, tmp_path):
        with pytest.raises(WeightsError, match="w holds NaN"):
            save_weights(tmp_path / "w", {"w": torch.tensor([float("nan")]).to(torch.float8_e4m3fn)})

    @pytest.mark.parametrize("tensor", [torch.ones(2, device="meta"), torch.ones(2).to_sparse(), [1.0], None])
    def test_what_has_no_bytes_of_its_own(self, tmp_path, tensor):
        with pytest.raises(WeightsError, match="w is not a plain dense tensor"):
            save_weights(tmp_path / "w", {"w": tensor})


@pytest.mark.parametrize("overrides", [(), ("model.pi05=true",)], ids=["pi0", "pi05"])
class TestPi0:
    """The layout that OpenPI's own `safetensors.torch.save_model` and `load_model` write and read."""

    @staticmethod
    def model(overrides, seed: int) -> Pi0:
        model = Pi0(load_config("tiny", overrides).model)
        initialise(model, seed)
        return model

    def test_ours_holds_the_keys_openpi_stores(self, tmp_path, overrides):
        model = self.model(overrides, 0)
        save_model(model, str(tmp_path / "openpi.safetensors"))
        ties = save_weights(tmp_path / "ours.safetensors", model.state_dict())
        assert read_header(tmp_path / "ours.safetensors") == read_header(tmp_path / "openpi.safetensors")
        assert [(name.split(".")[-2], kept.split(".")[-2]) for name, kept in ties.items()] == [
            ("embed_tokens", "lm_head")
        ]

    def test_openpi_loads_ours(self, tmp_path, overrides):
        model, other = self.model(overrides, 0), self.model(overrides, 1)
        save_weights(tmp_path / "model.safetensors", model.state_dict())
        assert load_model(other, tmp_path / "model.safetensors", strict=True) == (set(), [])
        assert equal(model, other)

    def test_we_load_openpis(self, tmp_path, overrides):
        model, other = self.model(overrides, 0), self.model(overrides, 1)
        save_model(model, str(tmp_path / "model.safetensors"))
        load_weights(tmp_path, other)
        assert equal(model, other)
