"""Which config keys a piece of code reads: every access to a field of a config, and from where."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from rlinf_isaac.config import schema, sft_schema

GENERIC = {
    "rlinf_isaac.config",
    "rlinf_isaac.config.fits",
    "rlinf_isaac.config.reads",
    "rlinf_isaac.preflight.config",
    "rlinf_isaac.preflight.memory",
    "rlinf_isaac.preflight.rl_config",
    # These say what a job is like, or estimate what it takes, on any device.
    "mlflow_project.lineage.provenance",
    "mlflow_project.tracked.headers",
    "rlinf_isaac.engines.local.rl.memory.as_fine_tuning",
    "rlinf_isaac.engines.local.sft.memory",
}
"""Modules and functions of ours that go through all keys or check them all, and read none for a purpose of the verb."""
ON_BEHALF = {"rlinf_isaac.pi0.trainable"}
"""Modules of ours that read a key for whoever calls them."""
PLACES = {
    schema.JobConfig: "",
    schema.GemmaConfig: "model.vlm.",
    schema.VisionConfig: "model.vision.",
    sft_schema.AugmentConfig: "sft.augment.",
    sft_schema.LoraConfig: "sft.lora.",
    **{type(section): f"{name}." for name, section in vars(schema.JobConfig()).items() if is_dataclass(section)},
}
"""Class of a section -> what its keys begin with, unless it was come by through another one."""

Reading = dict[str, set[str]]
"""Key -> functions that read it, as ``module.function``."""


@contextmanager
def reading() -> Iterator[Reading]:
    """What is read in this block, in this process."""
    found: Reading = defaultdict(set)
    with pytest.MonkeyPatch.context() as patch:
        for kind, place in PLACES.items():
            # The descriptions of tasks are no keys: ``env.task`` names them.
            names = {each.name for each in fields(kind)} - ({"task", "suite"} if kind is schema.JobConfig else set())
            patch.setattr(kind, "__getattribute__", _recorder(names, place, found))
        yield found


def _recorder(names: set[str], default: str, found: Reading) -> Callable[[Any, str], Any]:
    def getattribute(self: Any, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name not in names:
            return value
        key = object.__getattribute__(self, "__dict__").get("_place", default) + name
        if is_dataclass(value):
            value.__dict__["_place"] = f"{key}."
            return value
        frame = sys._getframe(1)
        # Go up from a comprehension or a lambda to its function, and from what reads for its caller to that.
        while frame.f_back is not None and (
            frame.f_code.co_name.startswith("<") or frame.f_globals["__name__"] in ON_BEHALF
        ):
            frame = frame.f_back
        module = frame.f_globals["__name__"]
        function = f"{module}.{frame.f_code.co_qualname}"
        if module.startswith(("rlinf_isaac.", "mlflow_project.")) and GENERIC.isdisjoint((module, function)):
            found[key].add(function)
        return value

    return getattribute
