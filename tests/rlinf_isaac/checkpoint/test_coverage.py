from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.checkpoint.coverage import check_coverage, plan_load, strip_wrappers
from rlinf_isaac.checkpoint.header import TensorInfo
from rlinf_isaac.config import load_config
from rlinf_isaac.ground.errors import WeightsError
from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES, TIED, state_dict_shapes

HEAD = "paligemma_with_expert.paligemma.lm_head.weight"
EMBED = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
EXPECTED = {HEAD: (300, 64), EMBED: (300, 64), "action_in_proj.weight": (64, 32), "action_in_proj.bias": (64,)}
segments = st.sampled_from(["layers", "0", "11", "weight", "bias", "mlp", "model", "module", "lm_head"])
parameter_names = st.lists(segments, min_size=2, max_size=5).map(".".join)


def stored(shapes: dict[str, tuple[int, ...]], dtype: str = "F32") -> dict[str, TensorInfo]:
    return {name: TensorInfo(dtype, shape) for name, shape in shapes.items()}


def test_a_full_match():
    plan = plan_load(stored(EXPECTED), EXPECTED)
    assert plan.sources == {name: name for name in EXPECTED}
    assert plan.ties == {}
    assert plan.stripped == ()


@pytest.mark.parametrize("dropped", [HEAD, EMBED])
def test_either_name_of_a_tie_stands_for_both(dropped):
    kept = {HEAD: EMBED, EMBED: HEAD}[dropped]
    file = stored({name: shape for name, shape in EXPECTED.items() if name != dropped})
    plan = plan_load(file, EXPECTED, ties=[(EMBED, HEAD)])
    assert plan.sources[dropped] == kept
    assert plan.ties == {dropped: kept}
    with pytest.raises(WeightsError, match=f"1 missing: {dropped}"):
        plan_load(file, EXPECTED)


def test_missing_unexpected_and_misshapen_are_all_told_and_counted():
    file = {f"value_head.{i}": TensorInfo("F32", (1,)) for i in range(7)} | stored(EXPECTED)
    del file[EMBED]
    file["action_in_proj.weight"] = TensorInfo("F32", (32, 64))
    with pytest.raises(WeightsError) as error:
        plan_load(file, EXPECTED, source="ckpt/400")
    message = str(error.value)
    assert "ckpt/400 does not fit the model (10 tensors stored, 4 expected)" in message
    assert f"1 missing: {EMBED}" in message
    assert (
        "7 unexpected: value_head.0, value_head.1, value_head.2, value_head.3, value_head.4, ... and 2 more" in message
    )
    assert "1 of another shape: action_in_proj.weight [32, 64] instead of [64, 32]" in message


def test_no_match_at_all_is_an_error():
    with pytest.raises(WeightsError, match="4 missing"):
        plan_load(stored({"something.else": (1,)}), EXPECTED)


@pytest.mark.parametrize(
    ("prefix", "stripped"),
    [
        ("module.", ("module",)),
        ("_orig_mod.", ("_orig_mod",)),
        ("_fsdp_wrapped_module.", ("_fsdp_wrapped_module",)),
        ("model.", ("model",)),
        ("module._orig_mod.", ("_orig_mod", "module")),
        ("fsdp_checkpoint.model.", ("fsdp_checkpoint", "model")),
        ("model.module._fsdp_wrapped_module.", ("_fsdp_wrapped_module", "model", "module")),
    ],
)
def test_prefixes_are_stripped_and_reported(prefix, stripped):
    plan = plan_load({prefix + name: info for name, info in stored(EXPECTED).items()}, EXPECTED)
    assert plan.sources == {name: prefix + name for name in EXPECTED}
    assert plan.stripped == stripped


def test_wrappers_at_any_depth_are_stripped():
    name = "paligemma_with_expert._fsdp_wrapped_module.gemma_expert._checkpoint_wrapped_module.lm_head.weight"
    assert strip_wrappers([name]) == (
        {"paligemma_with_expert.gemma_expert.lm_head.weight": name},
        ("_checkpoint_wrapped_module", "_fsdp_wrapped_module"),
    )


def test_a_prefix_that_the_model_has_itself_stays():
    expected = {"model.a.weight": (1,), "model.b.weight": (1,)}
    assert plan_load(stored(expected), expected).stripped == ()


def test_a_prefix_does_not_hide_what_is_left_over():
    file = {f"model.{name}": info for name, info in stored(EXPECTED).items()} | stored({"value_head.weight": (1,)})
    with pytest.raises(WeightsError, match=r"1 unexpected: value_head\.weight"):
        plan_load(file, EXPECTED)


def test_two_models_in_one_file():
    file = stored(EXPECTED) | {f"module.{name}": info for name, info in stored(EXPECTED).items()}
    file["module.extra"] = TensorInfo("F32", (1,))
    with pytest.raises(WeightsError, match="the checkpoint holds two models"):
        plan_load(file, EXPECTED)


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_rlinfs_other_layout_is_refused_with_what_renames_it(prefix):
    file = stored({f"{prefix}{name}": (1,) for name in ("img.pos_embedding", "llm.layers.0.attn.weight", "out.bias")})
    with pytest.raises(WeightsError, match="rlinf-isaac bundle make checkpoint --step 0"):
        plan_load(file, EXPECTED)


@settings(deadline=None)
@given(st.sets(parameter_names, min_size=1, max_size=8), st.data())
def test_only_full_matches_pass(names, data):
    expected = dict.fromkeys(names, (2, 3))
    file = stored(expected)
    assert plan_load(file, expected).sources == {name: name for name in names}
    victim = data.draw(st.sampled_from(sorted(names)))
    change = data.draw(st.sampled_from(["drop", "rename", "reshape"]))
    info = file.pop(victim)
    if change == "rename":
        file[victim + ".x"] = info
    elif change == "reshape":
        file[victim] = TensorInfo("F32", (3, 2))
    with pytest.raises(WeightsError):
        plan_load(file, expected)


class TestCheckCoverage:
    """From headers alone, against the architecture of a config."""

    @pytest.fixture(params=["pi0", "pi05"])
    def model(self, request):
        return load_config("tiny", [f"model.pi05={str(request.param == 'pi05').lower()}"]).model

    @staticmethod
    def write(path, shapes, dtype="BF16"):
        """A safetensors file whose data is a hole in the file: any size, no time."""
        header, end = {}, 0
        for name, shape in shapes.items():
            size = 2 * math.prod(shape)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        with open(path / "model.safetensors", "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)

    def codes(self, path, model):
        return [problem.code for problem in check_coverage(path, model)]

    def test_a_checkpoint_of_the_architecture(self, tmp_path, model):
        self.write(tmp_path, state_dict_shapes(model))
        assert check_coverage(tmp_path, model) == []

    @pytest.mark.parametrize("preset", ["pi0", "pi05"])
    def test_full_size_as_openpi_stores_it(self, tmp_path, preset):
        shapes = state_dict_shapes(load_config(preset).model)
        del shapes[TIED[0][0]]
        self.write(tmp_path, shapes)
        assert check_coverage(tmp_path, load_config(preset).model) == []
        other = {"pi0": "pi05", "pi05": "pi0"}[preset]
        assert self.codes(tmp_path, load_config(other).model) == ["weights-keys"]

    def test_wrapped_names(self, tmp_path, model):
        self.write(tmp_path, {f"module._orig_mod.{name}": shape for name, shape in state_dict_shapes(model).items()})
        assert check_coverage(tmp_path, model) == []

    def test_faults(self, tmp_path, model):
        shapes = state_dict_shapes(model)
        self.write(tmp_path, shapes | {"value_head.mlp.0.weight": (1,)})
        (problem,) = check_coverage(tmp_path, model)
        assert problem.code == "weights-keys"
        assert "1 unexpected: value_head.mlp.0.weight" in problem.cause
        self.write(tmp_path, shapes | {"action_in_proj.bias": (1,)})
        assert self.codes(tmp_path, model) == ["weights-shapes"]
        self.write(tmp_path, shapes, dtype="I16")
        assert self.codes(tmp_path, model) == ["weights-dtype"]
        self.write(tmp_path, {f"llm.{name}": shape for name, shape in shapes.items()})
        assert self.codes(tmp_path, model) == ["rlinf-layout"]
        (tmp_path / "model.safetensors").unlink()
        assert self.codes(tmp_path, model) == ["no-weights"]

    def test_optional_names_may_be_left_over_and_others_may_not(self, tmp_path, model):
        shapes = state_dict_shapes(model) | {"value_head.mlp.0.weight": (1,), "noise_head.mlp.0.weight": (1,)}
        self.write(tmp_path, shapes)
        assert check_coverage(tmp_path, model, optional=OPTIONAL_PREFIXES) == []
        self.write(tmp_path, shapes | {"value_head_2.weight": (1,)})
        (problem,) = check_coverage(tmp_path, model, optional=OPTIONAL_PREFIXES)
        assert "1 unexpected: value_head_2.weight" in problem.cause

    def test_it_needs_no_torch(self):
        code = "import sys, rlinf_isaac.checkpoint.coverage; print('torch' in sys.modules)"
        assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
