"""What a pickle of ``torch.save`` may name. Nothing else is read, and there is no option to allow more.

Three kinds of names: what torch makes tensors of, which its own reader knows (`TORCH`); dtypes and storages; and what
people keep beside their weights (`HARMLESS`: a last loss of numpy, a path, arguments, a config). Of the last nothing is
ever imported or called, by torch neither: an inert class of ours stands for each name (`stand_ins`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

_DISTRIBUTED = {
    "torch.distributed.tensor": "DTensor",
    "torch.distributed._tensor": "DTensor",
    "torch.distributed._tensor.api": "DTensor",
    "torch.distributed.tensor._dtensor_spec": "DTensorSpec TensorMeta ShardOrderEntry",
    "torch.distributed.tensor.placement_types": "DTensorSpec TensorMeta Partial Replicate Shard _StridedShard",
    "torch.distributed._tensor.placement_types": "DTensorSpec TensorMeta Partial Replicate Shard _StridedShard",
    "torch.distributed.device_mesh": "DeviceMesh",
    "torch.distributed._mesh_layout": "_FlatLayout _MeshLayout",
}
METADATA = {
    "torch.distributed.checkpoint.metadata": "BytesStorageMetadata ChunkStorageMetadata Metadata MetadataIndex"
    " StorageMeta TensorProperties TensorStorageMetadata _MEM_FORMAT_ENCODING",
    "torch.distributed.checkpoint.filesystem": "_StorageInfo",
}
"""What ``.metadata`` of a distributed checkpoint names besides."""
_TORCH = {
    "torch": "device Tensor",
    "torch.nn.parameter": "Parameter Buffer",
    "torch.serialization": "_get_layout",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter"
    " _rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor _rebuild_sparse_csr_tensor"
    " _rebuild_nested_tensor _rebuild_meta_tensor_no_storage _rebuild_device_tensor_from_numpy"
    " _rebuild_device_tensor_from_cpu_tensor _rebuild_wrapper_subclass",
}
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


def _full(modules: dict[str, str]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module, names in modules.items() for name in names.split())


HARMLESS = _full(_HARMLESS)
TORCH = _full(_TORCH | _DISTRIBUTED | METADATA)
# Members of the module torch that are no functions: dtypes, storage classes, quantisation schemes.
_DTYPE_LIKE = (
    *("float", "bfloat", "int", "uint", "complex", "bool", "qint", "quint", "bits"),
    *("per_tensor_", "per_channel_"),
)


def is_dtype_or_storage(module: str, name: str) -> bool:
    """Whether it is a dtype of torch or a class of storages."""
    storage = name.endswith("Storage") and module in ("torch", "torch.storage", "torch.cuda")
    return name.isidentifier() and (storage or (module == "torch" and name.startswith(_DTYPE_LIKE)))


class _Inert:
    """Whatever it is made with and told, it is nothing."""

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
    """For `torch.serialization.safe_globals`: what has the names of `HARMLESS`, and does nothing."""
    inert = [_named(type("Inert", (_Inert,), {}), name) for name in sorted(HARMLESS)]
    return [*inert, _named(_defaultdict, "collections.defaultdict"), _named(_deque, "collections.deque")]
