"""RLinf x OpenPI x IsaacLab, tracked: the robotics half. Never imports mlflow.

    import rlinf_isaac as ri

    policy = ri.load_policy("checkpoints/1200")   # or hf://org/name
    env = ri.make_env(policy, num_envs=4)

docs/python_api.md has all functions; those that record in MLflow are in `mlflow_project.api`. Names are imported when
they are first used, so that ``import rlinf_isaac`` takes no time; ``__init__.pyi`` tells editors what they are.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_MODULE_OF = {
    "BundleError": "rlinf_isaac.ground.errors",
    "DatasetError": "rlinf_isaac.ground.errors",
    "InvalidJob": "rlinf_isaac.ground.errors",
    "Policy": "rlinf_isaac.api",
    "Problem": "rlinf_isaac.ground.errors",
    "load_bundle": "rlinf_isaac.api",
    "load_config": "rlinf_isaac.api",
    "load_policy": "rlinf_isaac.api",
    "make_env": "rlinf_isaac.api",
    "open_dataset": "rlinf_isaac.api",
}

_TRACKED = "mlflow_project.api"
_OF_TRACKED = ("check", "compare", "demos", "evaluate", "promote", "push", "rows", "train")

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        there = f"; it is in {_TRACKED}, which records in MLflow" if name in _OF_TRACKED else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{there}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
