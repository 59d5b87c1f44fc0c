"""The names of classes and functions that a pickle of ``torch.save`` may contain. There is no option to allow more.

There are two kinds of names. The names that build tensors are a subset of those that torch's own safe reader knows. The
names of objects that people save beside their weights (`HARMLESS`: a numpy scalar such as the last loss, a path,
arguments, a config) are never imported or called, not even by torch: an inert class of this project stands for each of
them (`stand_ins`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

_TORCH = frozenset(
    {
        *("torch.device", "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"),
        *("torch.serialization._get_layout", "torch._tensor._rebuild_from_type_v2"),
    }
)
# Modules whose classes describe a DTensor or the content of a distributed checkpoint.
_DISTRIBUTED = (
    "tensor tensor._api tensor._dtensor_spec tensor.placement_types _tensor _tensor.api _tensor.placement_types"
    " device_mesh _mesh_layout checkpoint.metadata checkpoint.filesystem"
)
_MODULES = frozenset(f"torch.distributed.{module}" for module in _DISTRIBUTED.split())
_HARMLESS = {
    "argparse": "Namespace",
    "builtins": "bool dict float frozenset int list long str tuple unicode",
    "datetime": "date datetime timedelta",
    "numpy": "dtype",
    "numpy.core.multiarray": "scalar",
    "numpy._core.multiarray": "scalar",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode FloatNode IntegerNode PathNode StringNode",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "types": "SimpleNamespace",
    "typing": "Any",
}


HARMLESS = frozenset(f"{module}.{name}" for module, names in _HARMLESS.items() for name in names.split())
_KNOWN = _TORCH | HARMLESS
# Prefixes of the members of the module torch that are not functions: dtypes and quantisation schemes.
_DTYPE_LIKE = (
    *("float", "bfloat", "int", "uint", "complex", "bool", "qint", "quint", "bits"),
    *("per_tensor_", "per_channel_"),
)


def is_known(module: str, name: str) -> bool:
    """Whether the pickle of a checkpoint may name this class or function. `unpickle` has the list of containers."""
    if not name.isidentifier():  # a dotted name may reach through one module into another
        return False
    if f"{module}.{name}" in _KNOWN or (module, name[:9]) == ("torch._utils", "_rebuild_"):
        return True
    if module in ("torch", "torch.storage", "torch.cuda"):
        return name.endswith("Storage") or (module == "torch" and name.startswith(_DTYPE_LIKE))
    return module in _MODULES


class _Inert:
    """An object that ignores its arguments and its state."""

    def __new__(cls, *args: Any, **named: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _defaultdict(factory: Any = None) -> dict[Any, Any]:
    return {}


def _deque(values: Any = (), most: Any = None) -> list[Any]:
    return list(values)


def _named(value: Any, name: str) -> Any:
    value.__module__, _, value.__qualname__ = name.rpartition(".")
    value.__name__ = value.__qualname__
    return value


@cache
def stand_ins() -> list[Any]:
    """The inert classes with the names of `HARMLESS`, for `torch.serialization.safe_globals`."""
    inert = [_named(type("Inert", (_Inert,), {}), name) for name in sorted(HARMLESS)]
    return [*inert, _named(_defaultdict, "collections.defaultdict"), _named(_deque, "collections.deque")]
