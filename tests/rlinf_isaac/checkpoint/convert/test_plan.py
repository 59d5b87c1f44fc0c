"""Plans without any file: the storages here lie in files that do not exist."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rlinf_isaac.checkpoint.convert.plan import Options, plan_conversion
from rlinf_isaac.checkpoint.convert.tensors import Storage, StoredTensor, Unstorable, bytes_of, dense_stride
from rlinf_isaac.ground.errors import WeightsError


def tensor(*shape: int, dtype: str = "F32", key: str = "", offset: int = 0, stride=None, size=None) -> StoredTensor:
    tensor.made += 1
    storage = Storage(Path("nowhere.pt"), key or f"data/{tensor.made}", size or bytes_of(dtype, shape))
    return StoredTensor(dtype, shape, stride or dense_stride(shape), storage, offset)


tensor.made = 0


def named(**tensors: StoredTensor) -> dict:
    return {(name,): each for name, each in tensors.items()}


def codes(tensors, **options) -> list[str]:
    with pytest.raises(WeightsError) as error:
        plan_conversion(tensors, Options(**options))
    return sorted(problem.code for problem in error.value.problems)


def test_a_plan_is_in_the_order_of_safetensors():
    plan = plan_conversion(named(b=tensor(2), a=tensor(2, dtype="BF16"), c=tensor(1, dtype="I64"), aa=tensor(3)))
    assert [output.name for output in plan.tensors] == ["c", "aa", "b", "a"]
    (file,) = plan.files
    assert file.name == "model.safetensors"
    assert plan.total_size == 8 + 12 + 8 + 4
    assert file.nbytes == len(file.header) + plan.total_size
    header = json.loads(file.header[8:])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert header["aa"] == {"dtype": "F32", "shape": [3], "data_offsets": [8, 20]}


MANY = named(a=tensor(10), b=tensor(100), c=tensor(10), d=tensor(10), e=tensor(10))


class TestShards:
    def test_they_are_filled_in_order_and_a_large_tensor_is_alone(self):
        plan = plan_conversion(MANY, Options(max_shard_size=100))
        assert [file.name for file in plan.files] == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
        assert [[output.name for output in file.tensors] for file in plan.files] == [["b"], ["a", "c"], ["d", "e"]]

    def test_one_that_suffices_is_no_shard(self):
        assert [f.name for f in plan_conversion(MANY, Options(max_shard_size=560)).files] == ["model.safetensors"]


class TestTies:
    def test_the_name_that_sorts_first_is_stored(self):
        head = tensor(4, 3)
        plan = plan_conversion(named(lm_head=head, embed=head, other=tensor(1)))
        assert plan.ties == {"lm_head": "embed"}
        assert json.loads(plan.files[0].header[8:])["__metadata__"] == {"format": "pt", "lm_head": "embed"}
        assert plan.total_size == 52

    def test_views_are_only_tied_if_all_of_them_is_the_same(self):
        whole = {"key": "data/0", "size": 96}
        views = named(
            a=tensor(4, 3, **whole),
            b=tensor(4, 3, offset=48, **whole),
            c=tensor(3, 4, stride=(1, 3), **whole),
            d=tensor(12, **whole),
            e=tensor(12, dtype="I32", **whole),
        )
        plan = plan_conversion(views)
        assert plan.ties == {}
        assert plan.overlapping == (("a", "c", "d", "e"),)

    def test_a_cast_for_one_of_two_parts_them(self):
        head = tensor(4, 3)
        plan = plan_conversion(named(a=head, b=head), Options(dtype="bf16", keep_dtype=("b",)))
        assert plan.ties == {}
        assert {output.name: output.dtype for output in plan.tensors} == {"a": "BF16", "b": "F32"}

    def test_empty_tensors_are_not_tied(self):
        empty = tensor(0, 3)
        assert plan_conversion(named(a=empty, b=empty, c=tensor(1))).ties == {}

    def test_ties_that_a_file_records_are_kept(self):
        plan = plan_conversion(named(embed=tensor(2)), recorded_ties={"head": "embed"})
        assert plan.ties == {"head": "embed"}

    def test_shards_note_their_own_ties(self):
        one, two = tensor(10), tensor(10)
        plan = plan_conversion(named(a=one, b=one, c=two, d=two), Options(max_shard_size=40))
        notes = [json.loads(file.header[8:])["__metadata__"] for file in plan.files]
        assert notes == [{"format": "pt", "b": "a"}, {"format": "pt", "d": "c"}]


class TestCasts:
    def test_only_ordinary_floating_point_types(self):
        dtypes = ("F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "BOOL", "C64")
        plan = plan_conversion({(dtype,): tensor(2, dtype=dtype) for dtype in dtypes}, Options(dtype="bf16"))
        assert {output.name for output in plan.tensors if output.dtype == "BF16"} == {"F64", "F32", "F16", "BF16"}
        assert plan.summary()["cast"] == {"F16 -> BF16": 1, "F32 -> BF16": 1, "F64 -> BF16": 1}

    def test_exempt(self):
        plan = plan_conversion(named(norm=tensor(2), weight=tensor(2)), Options(dtype="fp16", keep_dtype=("n*",)))
        assert {output.name: output.dtype for output in plan.tensors} == {"norm": "F32", "weight": "F16"}


class TestNames:
    def test_wrappers_go_by_default_and_are_reported(self):
        names = ("module._fsdp_wrapped_module.a", "module.layers.0._checkpoint_wrapped_module.b", "module._orig_mod.c")
        plan = plan_conversion({(name,): tensor(1) for name in names})
        assert [output.name for output in plan.tensors] == ["a", "c", "layers.0.b"]
        assert plan.stripped == ("_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod", "module")

    def test_model_is_no_wrapper(self):
        """transformers' own names begin with it."""
        plan = plan_conversion({("model.embed",): tensor(1), ("model.norm",): tensor(1)})
        assert [output.name for output in plan.tensors] == ["model.embed", "model.norm"]

    def test_prefixes_go_one_after_the_other(self):
        plan = plan_conversion(
            {("policy.net.a",): tensor(1), ("b",): tensor(1)}, Options(strip_prefix=("policy.", "net."))
        )
        assert {output.name: output.stored for output in plan.tensors} == {"a": "policy.net.a", "b": "b"}
        assert plan.summary()["renamed"] == 1

    def test_patterns(self):
        tensors = named(a1=tensor(1), a2=tensor(1), b1=tensor(1))
        plan = plan_conversion(tensors, Options(include=("a*",), exclude=("*2",)))
        assert [output.name for output in plan.tensors] == ["a1"]
        assert plan.dropped == ("a2", "b1")


class TestStateDict:
    def under(self, *keys: str) -> dict:
        return {(*keys, name): each for name, each in {"w": tensor(2), "b": tensor(1)}.items()}

    @pytest.mark.parametrize("keys", [(), ("state_dict",), ("model",), ("module",), ("model", "state_dict"), ("net",)])
    def test_found(self, keys):
        plan = plan_conversion(self.under(*keys))
        assert [output.name for output in plan.tensors] == ["b", "w"]
        assert plan.state_dict == ".".join(keys)

    def test_the_optimiser_is_dropped_and_reported(self):
        optimiser = {("optimizer", "state", "0", "exp_avg"): tensor(2), ("step",): tensor()}
        plan = plan_conversion(self.under("model") | optimiser, others=3)
        assert plan.dropped == ("optimizer.state.0.exp_avg", "step")
        assert plan.others == 3

    def test_a_nested_dict_of_modules_stays_whole(self):
        tensors = {("model", "encoder", "w"): tensor(1), ("model", "decoder", "w"): tensor(1)}
        assert [output.name for output in plan_conversion(tensors).tensors] == ["decoder.w", "encoder.w"]

    def test_several_are_refused_by_name(self):
        tensors = self.under("model") | {("ema", "w"): tensor(2), ("ema", "b"): tensor(1)}
        with pytest.raises(WeightsError, match=r"several state dicts: model, ema") as error:
            plan_conversion(tensors)
        assert error.value.problems[0].code == "several-state-dicts"
        assert plan_conversion(tensors, Options(state_dict_key="ema")).state_dict == "ema"
        assert len(plan_conversion(tensors, Options(state_dict_key=".")).tensors) == 4

    def test_a_key_that_is_not_there(self):
        with pytest.raises(WeightsError, match=r"name one of: a, a\.model") as error:
            plan_conversion(self.under("a", "model"), Options(state_dict_key="model"))
        assert error.value.problems[0].code == "state-dict-key"


class TestRefusals:
    def test_all_problems_at_once(self):
        tensors = named(a=tensor(1), q=Unstorable("a quantised tensor", "dequantise it"))
        found = codes(tensors, include=("q", "x*"), exclude=("y*",), strip_prefix=("z.",), keep_dtype=("k",))
        assert found == [
            "exclude-matches-nothing",
            "include-matches-nothing",
            "keep-dtype-matches-nothing",
            "not-a-dense-tensor",
            "prefix-matches-nothing",
        ]

    def test_nothing_left(self):
        assert codes(named(a=tensor(1)), exclude=("*",)) == ["empty-weights"]

    def test_colliding_names(self):
        assert codes({("a.b",): tensor(1), ("a", "b"): tensor(1)}, state_dict_key=".") == ["duplicate-names"]
        assert codes({("p.a",): tensor(1), ("a",): tensor(1)}, strip_prefix=("p.",)) == ["duplicate-names"]
        assert codes({("_orig_mod.a",): tensor(1), ("a",): tensor(1)}) == ["two-models"]

    @pytest.mark.parametrize("name", ["\ud800", "", "__metadata__", "format"])
    def test_names_that_no_file_can_hold(self, name):
        assert codes({(name,): tensor(1)}) == ["bad-tensor-name"]


def test_a_plan_says_how_much_it_is_about():
    summary = plan_conversion(named(a=tensor(3, 4), b=tensor(dtype="I64"))).summary()
    assert summary["tensors"] == 2
    assert summary["parameters"] == math.prod((3, 4)) + 1
    assert summary["bytes"] == 48 + 8
    assert summary["dtypes"] == {"F32": 1, "I64": 1}
    assert json.loads(json.dumps(summary)) == summary
