"""Makes tensors of parts of stored tensors. Nothing is read: only the places of the elements are computed."""

from __future__ import annotations

from dataclasses import replace

from rlinf_isaac.checkpoint.convert.tensors import AnyDense, ComputedTensor, StoredTensor
from rlinf_isaac.checkpoint.header import BITS


def narrow(tensor: AnyDense, axis: int, begin: int, size: int) -> AnyDense:
    """The elements from `begin` to `begin` + `size` of an axis."""
    shape = (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    if isinstance(tensor, StoredTensor):
        steps = begin * tensor.stride[axis]
        offset = tensor.offset + steps * BITS[tensor.dtype] // 8
        return replace(tensor, shape=shape, offset=offset, shift=tensor.shift + steps)
    name = (*tensor.key, f"[{axis}: {begin}, {size}]")
    index = (*(slice(None),) * axis, slice(begin, begin + size))
    return ComputedTensor(tensor.dtype, shape, name, lambda: tensor.read()[index], tensor.files)


def entry(tensor: AnyDense, axis: int, index: int) -> AnyDense:
    """The tensor at one index of an axis, without this axis."""
    part = narrow(tensor, axis, index, 1)
    return transpose(part, tuple(each for each in range(len(part.shape)) if each != axis))


def transpose(tensor: AnyDense, axes: tuple[int, ...]) -> AnyDense:
    """The tensor with its axes in another order. An axis that is left out must have size 1."""
    if isinstance(tensor, StoredTensor):
        return replace(tensor, shape=_picked(tensor.shape, axes), stride=_picked(tensor.stride, axes))
    left = tuple(axis for axis in range(len(tensor.shape)) if axis not in axes)
    shape = _picked(tensor.shape, axes)

    def read() -> object:
        return tensor.read().transpose((*axes, *left)).reshape(shape)

    return ComputedTensor(tensor.dtype, shape, (*tensor.key, f"{axes}"), read, tensor.files)  # type: ignore[arg-type]


def _picked(values: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(values[axis] for axis in axes)
