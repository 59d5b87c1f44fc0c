"""What torch reads of files of ``torch.save``: other protocols of pickle, odd names, and what lies beside weights."""

from __future__ import annotations

import argparse
import warnings
from collections import Counter, defaultdict, deque
from datetime import datetime
from fractions import Fraction
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from rlinf_isaac.checkpoint.convert import Options, prepare, run
from rlinf_isaac.checkpoint.convert.source import Source, load_torch
from rlinf_isaac.checkpoint.convert.tensors import DTYPES
from rlinf_isaac.ground.errors import ConversionFailed, InvalidJob

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])


@pytest.fixture
def content() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0)
    tensors = {
        "base": base,
        "slice": base[2:14].reshape(3, 4).t(),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(3),
    }
    return tensors | {name: torch.zeros(5).to(getattr(torch, name)) for name in DTYPES}


@PROTOCOLS
def test_every_tensor_is_verified(tmp_path, content, protocol):
    torch.save(content, tmp_path / "w.pt", pickle_protocol=protocol)
    assert run(prepare(tmp_path / "w.pt", tmp_path / "out"))["verified"]


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_fault_of_the_writer_is_found(tmp_path, content, protocol, monkeypatch):
    torch.save(content, tmp_path / "w.pt", pickle_protocol=protocol)
    blocks = Source.blocks
    monkeypatch.setattr(
        Source, "blocks", lambda self, output: ((block, bytes(piece)[::-1]) for block, piece in blocks(self, output))
    )
    with pytest.raises(ConversionFailed, match="was written wrongly"):
        run(prepare(tmp_path / "w.pt", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_nothing_is_executed(tmp_path, bomb, protocol):
    """Not even when it is asked for what the converter would have refused before."""
    torch.save({"w": torch.ones(1), "x": bomb}, tmp_path / "w.pt", pickle_protocol=protocol)
    with pytest.raises(InvalidJob) as error:
        prepare(tmp_path / "w.pt", tmp_path / "out")
    assert error.value.problems[0].code == "unsafe-pickle"
    with pytest.raises(Exception, match=r"mkdir|WeightsUnpickler|Unsupported"):
        load_torch(tmp_path / "w.pt")


class TestBeside:
    """What people keep beside their weights; none of it is imported or called, and none of it is written."""

    @staticmethod
    def content() -> dict[str, object]:
        config = {"lr": 1e-4, "layers": [1, 2], "nested": {"name": "x"}}
        return {
            "model": {"w": torch.arange(6.0)},
            "loss": np.float64(0.25),
            "best": np.float32(0.125),
            "steps": np.int64(7),
            "dtype": np.dtype("float32"),
            "args": argparse.Namespace(lr=1e-4, output=Path("out")),
            "path": PurePosixPath("a/b"),
            "metrics": defaultdict(list, loss=[0.5]),
            "recent": deque([1.0, 2.0], maxlen=2),
            "counts": Counter("abca"),
            "shape": torch.Size([2, 3]),
            "kind": torch.bfloat16,
            "device": torch.device("cpu"),
            "when": datetime(2026, 1, 2),
            "seen": {1, 2},
            "space": SimpleNamespace(a=1),
            "config": OmegaConf.create(config),
        }

    @pytest.mark.parametrize("legacy", [False, True])
    def test_it_does_no_harm(self, save, convert, legacy):
        out = convert(save(self.content(), legacy))
        assert torch.equal(load_file(out / "model.safetensors")["w"], torch.arange(6.0))

    @PROTOCOLS
    def test_of_any_protocol(self, tmp_path, convert, protocol):
        torch.save(self.content(), tmp_path / "w.pt", pickle_protocol=protocol)
        assert load_file(convert(tmp_path / "w.pt") / "model.safetensors").keys() == {"w"}

    def test_nothing_of_it_is_made(self, save):
        found = load_torch(save(self.content()))
        for name in ("loss", "best", "args", "path", "when", "space", "config"):
            assert type(found[name]).__mro__[1].__name__ == "_Inert", name

    @pytest.mark.parametrize("odd", [np.zeros(2), Fraction(1, 2), print, torch.nn.Linear])
    def test_what_is_not_listed_is_named(self, save, refusal, odd):
        assert refusal(save({"w": torch.ones(1), "odd": odd})) == "unsafe-pickle"


def test_what_torch_cannot_read_is_said(save, refusal):
    """It saves floats of eight bits in its old format, and does not read them again."""
    assert refusal(save({"w": torch.zeros(2).to(torch.float8_e5m2)}, legacy=True)) == "torch-refuses"


class TestNames:
    def test_a_number_and_a_text_that_become_one_name(self, save, refusal):
        assert refusal(save({"a": {0: torch.ones(1), "0": torch.ones(1)}})) == "duplicate-names"

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_tensor_without_a_name(self, save, refusal, legacy):
        assert refusal(save(torch.ones(2), legacy)) == "unnamed-tensor"

    def test_a_tensor_that_is_called_nothing(self, save, refusal):
        assert refusal(save({"": torch.ones(2)})) == "bad-tensor-name"


class TestExpanded:
    def test_what_repeats_its_elements_is_compared_in_little_memory(self, save, convert):
        """1 GiB when dense, of which neither the writer nor the comparison has more than blocks in memory."""
        from safetensors import safe_open

        out = convert(save({"w": torch.ones(1).expand(2**14, 2**14)}))
        with safe_open(out / "model.safetensors", framework="pt") as file:
            assert file.get_slice("w").get_shape() == [2**14, 2**14]
            assert (file.get_slice("w")[-1] == 1).all()

    def test_only_they_are_named(self, save, tmp_path):
        base = torch.zeros(64)
        plan = prepare(save({"a": base, "b": base[:8], "c": base[:1].expand(4, 100)}), tmp_path / "out").plan
        assert [tensor.name for tensor in plan.expanded] == ["c"]


def test_floats_of_eight_bits_stay_and_are_counted(save, tmp_path):
    content = {"a": torch.ones(4), "b": torch.zeros(4).to(torch.float8_e5m2), "c": torch.ones(4, dtype=torch.int64)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = prepare(save(content), tmp_path / "out", Options(dtype="bf16")).plan
    assert {tensor.name: tensor.dtype for tensor in plan.tensors} == {"a": "BF16", "b": "F8_E5M2", "c": "I64"}
    assert plan.not_cast == {"F8_E5M2": 1}
    assert prepare(save(content), tmp_path / "out").plan.not_cast == {}
