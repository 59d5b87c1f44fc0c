"""Turns a tensor's entry in a pickle of torch into a `StoredTensor`, or into the reason why safetensors cannot hold it.

This module does not need torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlinf_isaac.checkpoint.convert.tensors import DTYPES, AnyTensor, Storage, StoredTensor, Unstorable
from rlinf_isaac.checkpoint.convert.unpickle import Call, Name
from rlinf_isaac.checkpoint.header import BITS

FindStorage = Callable[[Any], tuple[Storage, str | None]]
"""Maps a persistent id to the storage that it names, and to the dtype of that storage, which is None if untyped."""

# Class of a typed storage of torch -> dtype. Pickles still name these classes.
_TYPED = (
    "Double float64, Float float32, Half float16, BFloat16 bfloat16, Long int64, Int int32, Short int16, Char int8, "
    "Byte uint8, Bool bool, ComplexDouble complex128, ComplexFloat complex64, QInt8 qint8, QUInt8 quint8, "
    "QInt32 qint32, QUInt4x2 quint4x2, QUInt2x4 quint2x4"
)
_STORAGES = {f"{kind}Storage": dtype for kind, dtype in map(str.split, _TYPED.split(", "))}
# Functions and classes whose first argument is the tensor itself.
_AROUND = (
    *("Parameter", "Buffer", "_rebuild_parameter", "_rebuild_parameter_with_state"),
    "_rebuild_device_tensor_from_cpu_tensor",
)
_MAX_AXES = 64
_REFUSED = {
    "_rebuild_qtensor": Unstorable("a quantised tensor", "save it dequantised: tensor.dequantize()"),
    "_rebuild_sparse_tensor": Unstorable("a sparse tensor", "save it dense: tensor.to_dense()"),
    "_rebuild_sparse_csr_tensor": Unstorable("a sparse tensor", "save it dense: tensor.to_dense()"),
    "_rebuild_nested_tensor": Unstorable("a nested tensor", "save its parts, or padded: tensor.to_padded_tensor(0)"),
    "_rebuild_meta_tensor_no_storage": Unstorable(
        "a tensor on the meta device, which has no values", "save it after the weights were loaded"
    ),
    "_rebuild_device_tensor_from_numpy": Unstorable(
        "a tensor of an accelerator that torch saves as a numpy array", "save it on the CPU"
    ),
    "_rebuild_wrapper_subclass": Unstorable("a tensor without a storage of its own", "save plain tensors"),
}
_GATHER = "gather it before saving: tensor.full_tensor(); or convert the distributed checkpoint of the same step"


def dtype_of(value: Any) -> str | None:
    """The dtype that the `Name` of a storage class or of a dtype stands for; None for an untyped storage.

    The dtype has safetensors' name, or torch's if safetensors has none.

    Raises:
        ValueError: `value` is neither a storage class nor a dtype.
    """
    name = value.name if isinstance(value, Name) else ""
    last = name.rpartition(".")[2]
    if last in ("UntypedStorage", "TypedStorage"):
        return None
    torch_name = _STORAGES.get(last) or (last if name == f"torch.{last}" and not last.endswith("Storage") else None)
    if torch_name is None:
        raise ValueError(f"its pickle has {name or type(value).__name__} where a dtype belongs")
    return DTYPES.get(torch_name, torch_name)


def to_tensor(call: Call, storage: FindStorage) -> AnyTensor | None:
    """The tensor that a call in a pickle makes; None if the call makes something else.

    Raises:
        ValueError: the tensor does not fit into its storage, or torch does not call the function in this way.
    """
    function = call.name.rpartition(".")[2]
    if function in _AROUND:
        inner = call.args[0] if call.args else None
        if not isinstance(inner, Call) or inner.name.rpartition(".")[2] in _AROUND:
            raise ValueError(f"its pickle calls {function} as torch never does")
        return to_tensor(inner, storage)
    args = call.args
    try:
        if function == "_rebuild_from_type_v2":
            return _subclass(args, storage)
        if function in _REFUSED:
            return _REFUSED[function]
        if function in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            found, dtype = storage(args[0])
            return _view(found, dtype, args[1:4], args[6] if len(args) > 6 else None)
        if function == "_rebuild_tensor_v3":
            found, _ = storage(args[0])
            return _view(found, dtype_of(args[6]), args[1:4], args[7] if len(args) > 7 else None)
    except (IndexError, TypeError) as error:
        raise ValueError(f"its pickle calls {function} as torch never does") from error
    return None


def _subclass(args: tuple[Any, ...], storage: FindStorage) -> AnyTensor | None:
    """The tensor of ``_rebuild_from_type_v2(function, class, arguments, state)``: a DTensor or one with attributes."""
    function, kind, inner, state = args
    kind_name = kind.name if isinstance(kind, Name) else "tensor of an unknown class"
    if kind_name in ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"):
        if not isinstance(function, Name) or function.name.endswith("_rebuild_from_type_v2"):
            raise TypeError("its function makes no tensor")
        return to_tensor(Call(function.name, inner), storage)
    if isinstance(state, tuple) and len(state) == 2:  # (attributes, slots)
        state = {**(state[0] or {}), **(state[1] or {})}
    part = state.get("_local_tensor") if isinstance(state, dict) else None
    if kind_name.endswith(".DTensor") and isinstance(part, Call) and not part.name.endswith("_rebuild_from_type_v2"):
        local = to_tensor(part, storage)
        if isinstance(local, StoredTensor) and local.shape == tuple(inner[2]) and not _is_partial(state.get("_spec")):
            return local
        return Unstorable("a DTensor of which this file holds one rank's part", _GATHER)
    return Unstorable(f"a {kind_name}", "save plain tensors")


def _is_partial(spec: Any) -> bool:
    """Whether the values of a DTensor have yet to be summed over the ranks."""
    placements = spec.state.get("placements", ()) if isinstance(spec, Call) else ()
    return any(not isinstance(each, Call) or each.name.endswith("Partial") for each in placements)


def _view(storage: Storage, dtype: str | None, geometry: tuple[Any, ...], flags: Any) -> AnyTensor:
    offset, shape, stride = geometry
    fits = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= _MAX_AXES
    if not fits or any(type(size) is not int or not 0 <= size < 2**60 for size in (offset, *shape, *stride)):
        raise ValueError("the shape, stride or offset of a tensor in its pickle is not valid")
    if flags:
        return Unstorable(
            "a lazily conjugated or negated view", "save it resolved: tensor.resolve_conj().resolve_neg()"
        )
    if dtype is None or dtype not in BITS:
        return Unstorable(
            f"a tensor of dtype {dtype or 'unknown'}", "cast it before saving; safetensors has no such dtype"
        )
    tensor = StoredTensor(dtype, tuple(shape), tuple(stride), storage, offset * BITS[dtype] // 8)
    if tensor.span[1] > storage.size:
        raise ValueError(f"a tensor of shape {list(shape)} reaches beyond {storage.name}")
    return tensor
