"""Files of torch and conversions of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus.foreign import dummy_model

from rlinf_isaac.checkpoint.convert import Options, prepare, run
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.pi0.model import Pi0


class Bomb:
    """Unpickling it creates a directory: the sign that code of a checkpoint was run."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.fixture
def bomb(tmp_path) -> Bomb:
    yield Bomb(tmp_path / "pwned")
    assert not (tmp_path / "pwned").exists()


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    """Save something with torch as ``weights.pt``."""

    def save(content: Any, legacy: bool = False) -> Path:
        path = tmp_path / "weights.pt"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        return path

    return save


@pytest.fixture
def convert(tmp_path) -> Callable[..., Path]:
    """Convert to ``out``, verified; returns that directory."""

    def convert(source: Path, verify: bool = True, **options: Any) -> Path:
        run(prepare(source, tmp_path / "out", Options(**options), overwrite=True), verify=verify)
        return tmp_path / "out"

    return convert


@pytest.fixture
def refusal(tmp_path) -> Callable[..., str]:
    """The only code with which a conversion is refused; nothing is written."""

    def refusal(source: Path, **options: Any) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InvalidJob) as error:
            run(prepare(source, tmp_path / "out", Options(**options)), verify=False)
        assert sorted(tmp_path.rglob("*")) == before
        (problem,) = error.value.problems
        assert problem.cure
        return problem.code

    return refusal


@pytest.fixture(scope="module")
def model(config) -> Pi0:
    """A model of the module's `config` in which no parameter is zero: norms and gates start so."""
    model = dummy_model(config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.01)
    return model
