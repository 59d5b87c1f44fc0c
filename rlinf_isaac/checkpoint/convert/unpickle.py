"""The pickles of ``torch.save`` without torch, and without executing anything.

A pickle is a program that may call what it names. Here it may name what state dicts are made of, and each name stands
for an inert record of how it was called: nothing is imported, no tensor is made. The opcodes are restricted as well,
to those that torch writes. What a pickle wants beyond that is refused by name; there is no option to allow it.
"""

from __future__ import annotations

import gc
import io
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

# Classes of torch.distributed that stand in a DTensor's description or in a distributed checkpoint's metadata.
_INERT_MODULES = (
    "torch.distributed.tensor",
    "torch.distributed._tensor",
    "torch.distributed.device_mesh",
    "torch.distributed._mesh_layout",
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.checkpoint.filesystem",
)
_INERT = {
    "torch.device",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
    "torch.serialization._get_layout",
    "torch._tensor._rebuild_from_type_v2",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib._local.PosixPath",
    "pathlib._local.PurePosixPath",
    *(
        f"torch._utils.{name}"
        for name in (
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
            "_rebuild_parameter",
            "_rebuild_parameter_with_state",
            "_rebuild_qtensor",
            "_rebuild_sparse_tensor",
            "_rebuild_sparse_csr_tensor",
            "_rebuild_nested_tensor",
            "_rebuild_meta_tensor_no_storage",
            "_rebuild_device_tensor_from_numpy",
            "_rebuild_device_tensor_from_cpu_tensor",
            "_rebuild_wrapper_subclass",
        )
    ),
}
_REAL: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda pairs=(): _dict(pairs),
    "collections.Counter": lambda pairs=(): _dict(pairs.items() if isinstance(pairs, dict) else pairs),
    "builtins.set": lambda values=(): {_key(value) for value in values},
    "builtins.complex": lambda *args: complex(*args),
    "builtins.bytearray": lambda *args: b"",
    "_codecs.encode": lambda *args: b"",
    "torch.Size": lambda sizes=(): tuple(sizes),
}
# Members of the module torch that are no functions: dtypes, storage classes, quantisation schemes.
_DTYPE_LIKE = (
    "float",
    "bfloat",
    "int",
    "uint",
    "complex",
    "bool",
    "qint",
    "quint",
    "bits",
    "per_tensor_",
    "per_channel_",
)

_MAX_OPCODES = 7_000_000  # of a state dict with 130 000 tensors; each may take 100 bytes of memory
_OPCODES = (
    "PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE"
    " BINUNICODE8 BINBYTES SHORT_BINBYTES SHORT_BINSTRING EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND"
    " APPENDS EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID"
    " BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE"
)


@dataclass(eq=False)
class Call:
    """What a pickle made of a class or function: `name` called with `args`, and the state it was given."""

    name: str
    args: tuple[Any, ...]
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Name:
    """A class, function or value that a pickle named and did not call (yet)."""

    name: str

    def __call__(self, *args: Any) -> Any:
        """What a pickle gets that calls this: a plain container, or the record of the call."""
        make = _REAL.get(self.name)
        return Call(self.name, args) if make is None else make(*args)


@dataclass(frozen=True)
class PersistentId:
    """What torch keeps outside of the pickle: a storage, as the tuple that names it."""

    value: Any


class Forbidden(pickle.UnpicklingError):
    """A pickle named what no state dict needs; its only argument is the name."""


def load(stream: BinaryIO, ids: list[Any] | None = None, *, inert: bool = False) -> Any:
    """Unpickle one object from where `stream` stands; the stream then stands behind it.

    Args:
        stream: with ``read`` and ``readline``.
        ids: gets every persistent id that the pickle has.
        inert: let it name anything: no name is ever imported or called, so that what a config holds besides numbers
            and texts does no harm. Weights name little, and whatever else they name is a reason to refuse them.

    Returns:
        dicts, lists, tuples, numbers and texts; `Call`, `Name` and `PersistentId` in place of everything else.

    Raises:
        Forbidden: it names a class or function that no state dict needs.
        pickle.UnpicklingError: it is damaged, or no pickle of torch.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would look at all of these small objects again and again, and free none
    try:
        unpickler = _Inert(stream) if inert else _Unpickler(stream)
        unpickler.ids = [] if ids is None else ids
        return unpickler.load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle may fail in any operation
        raise pickle.UnpicklingError(f"it is damaged ({type(error).__name__}: {error})") from error
    finally:
        if collecting:
            gc.enable()


def loads(data: bytes, *, inert: bool = False) -> Any:
    """Unpickle `data`, as `load`; nothing may follow the object."""
    stream = io.BytesIO(data)
    value = load(stream, inert=inert)
    if stream.read(1):
        raise pickle.UnpicklingError("something follows the pickle")
    return value


_PurePython: Any = pickle._Unpickler  # the one written in Python: its opcodes can be chosen


class _Unpickler(_PurePython):
    # Without a bound, an opcode could ask for a buffer of any size; these only read what is there.
    dispatch: ClassVar[dict[int, Any]] = {
        getattr(pickle, name)[0]: _PurePython.dispatch[getattr(pickle, name)[0]] for name in _OPCODES.split()
    }

    ids: list[Any]

    def load(self) -> Any:
        """As in `pickle`, but for so many opcodes, and straight from the stream: frames only help those who buffer."""
        self.read, self.readline = self._file_read, self._file_readline
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.proto = 0
        self.append = self.stack.append
        read, dispatch = self.read, self.dispatch
        try:
            for _ in range(_MAX_OPCODES):
                dispatch[read(1)[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        raise pickle.UnpicklingError(f"it has more than {_MAX_OPCODES} operations")

    def find_class(self, module: str, name: str) -> Name:
        full = f"{module}.{name}".replace("__builtin__.", "builtins.")
        if module == "torch" and (name.startswith(_DTYPE_LIKE) or name.endswith("Storage")) and name.isidentifier():
            return Name(full)
        if module in ("torch.storage", "torch.cuda") and name.endswith("Storage") and name.isidentifier():
            return Name(full)
        inert = any(module == each or module.startswith(f"{each}.") for each in _INERT_MODULES)
        if len(full) > 200:
            raise pickle.UnpicklingError("it names something with a very long name")
        if full in _INERT or full in _REAL or (inert and name.isidentifier()):
            return Name(full)
        raise Forbidden(full)

    def persistent_load(self, pid: Any) -> PersistentId:
        self.ids.append(pid)
        return PersistentId(pid)

    def _new(self) -> None:
        args = self.stack.pop()
        name = self.stack.pop()
        if not isinstance(name, Name):
            raise pickle.UnpicklingError("it makes an object of something that is no class")
        self.append(name(*args))

    def _call(self) -> None:
        args = self.stack.pop()
        name = self.stack[-1]
        if not isinstance(name, Name) or not isinstance(args, tuple):
            raise pickle.UnpicklingError("it calls something that is no function")
        self.stack[-1] = name(*args)

    def _build(self) -> None:
        """State of an object; what modules attach to their state dicts (versions) is left aside."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Call):
            target.state = state if isinstance(state, dict) else {"": state}
        elif not isinstance(target, dict):
            raise pickle.UnpicklingError(f"it gives a state to a {type(target).__name__}")

    def _frame(self) -> None:
        self.read(8)

    def _set_items(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(_dict(zip(items[::2], items[1::2], strict=True)))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(_dict([(key, value)]))

    def _add_items(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update({_key(item) for item in items})

    dispatch[pickle.FRAME[0]] = _frame
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.ADDITEMS[0]] = _add_items
    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.REDUCE[0]] = _call
    dispatch[pickle.BUILD[0]] = _build


class _Inert(_Unpickler):
    """Knows every name, and does nothing with it."""

    def find_class(self, module: str, name: str) -> Name:
        full = f"{module}.{name}".replace("__builtin__.", "builtins.")
        if len(full) > 200:
            raise pickle.UnpicklingError("it names something with a very long name")
        return Name(full)


def _dict(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _key(value: Any) -> Any:
    """A key that takes no time to hash: nested tuples may take forever, and ints can be made to collide."""
    if not isinstance(value, str | bytes | int | float | None | Call | Name) or (
        isinstance(value, int) and not -(2**63) <= value < 2**64
    ):
        raise pickle.UnpicklingError(f"it has a key that is a {type(value).__name__}")
    return value
