"""Reads the pickles of ``torch.save`` without torch, and without executing anything in them.

torch reads the values later (`checkpoint.convert.source`). But problems have to be reported before torch is imported,
and `torch.load` takes as much time and memory as a pickle asks for. This module therefore uses Python's own unpickler
with three restrictions. It knows only the opcodes that torch writes. It accepts only the names in
`checkpoint.convert.names`, and records how they are called instead of calling them. And keys must be texts or numbers,
which are quick to hash. Python's unpickler written in C allows only the second restriction, so the one written in
Python is used.
"""

from __future__ import annotations

import gc
import io
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlinf_isaac.checkpoint.convert.names import is_known

MAX_BYTES = 512_000_000
_MAX_OPCODES = 7_000_000  # enough for a state dict with 130 000 tensors; an opcode may take 100 bytes of memory
_OPCODES = (
    "PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE"
    " BINUNICODE8 BINBYTES SHORT_BINBYTES SHORT_BINSTRING EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND"
    " APPENDS EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID"
    " BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE"
)
_REAL: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda pairs=(): _dict(pairs),
    "collections.Counter": lambda pairs=(): _dict(pairs.items() if isinstance(pairs, dict) else pairs),
    "collections.defaultdict": lambda factory=None: {},
    "collections.deque": lambda values=(), most=None: list(values),
    "builtins.set": lambda values=(): {_key(value) for value in values},
    "builtins.complex": lambda *args: complex(*args),
    "builtins.bytearray": lambda *args: b"",
    "_codecs.encode": lambda *args: b"",
    "torch.Size": lambda sizes=(): tuple(sizes),
}


@dataclass(eq=False)
class Call:
    """A call in a pickle: of the class or function `name` with `args`, and the state that the result was given."""

    name: str
    args: tuple[Any, ...]
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Name:
    """A class, function or value that a pickle names and has not called."""

    name: str

    def __call__(self, *args: Any) -> Any:
        """The result of a call in a pickle: a plain container, or the record of the call."""
        if self.name.endswith(("bytearray", "Storage")) and any(isinstance(arg, int) for arg in args):
            raise pickle.UnpicklingError("it makes memory of a size that it names")  # torch would allocate it
        make = _REAL.get(self.name)
        return Call(self.name, args) if make is None else make(*args)


@dataclass(frozen=True)
class PersistentId:
    """The tuple by which a pickle names a storage, which torch keeps outside of the pickle."""

    value: Any


class Forbidden(pickle.UnpicklingError):
    """A pickle names something that no state dict needs. The only argument is the name."""


def load(stream: Any, *, inert: bool = False) -> Any:
    """Unpickle one object from the current position of `stream`, which is left at the byte after the object.

    Args:
        stream: an object with ``read`` and ``readline``.
        inert: accept every name. This is safe, because no name is ever imported or called, and serves for configs,
            which hold objects of many classes. Weights need few names, so any other name is a reason to refuse them.

    Returns:
        dicts, lists, tuples, numbers and texts, with `Call`, `Name` and `PersistentId` in place of everything else.

    Raises:
        Forbidden: the pickle names a class or function that is not listed.
        pickle.UnpicklingError: the pickle is damaged, or torch did not write it.
    """
    collecting = gc.isenabled()
    gc.disable()  # the collector would go through all these small objects again and again, and free none
    try:
        unpickler = _Unpickler(stream)
        unpickler.inert = inert
        return unpickler.load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle may fail in any operation
        raise pickle.UnpicklingError(f"it is damaged ({type(error).__name__}: {error})") from error
    finally:
        if collecting:
            gc.enable()


def loads(data: bytes, *, inert: bool = False) -> Any:
    """Unpickle `data` as `load` does. Bytes after the object are an error."""
    stream = io.BytesIO(data)
    value = load(stream, inert=inert)
    if stream.read(1):
        raise pickle.UnpicklingError("something follows the pickle")
    return value


_PurePython: Any = pickle._Unpickler  # the unpickler written in Python, whose opcodes can be chosen


class _Unpickler(_PurePython):
    dispatch: ClassVar[dict[int, Any]] = {
        getattr(pickle, name)[0]: _PurePython.dispatch[getattr(pickle, name)[0]] for name in _OPCODES.split()
    }

    inert: bool

    def load(self) -> Any:
        """Like the method of `pickle`, but limited to `_MAX_OPCODES`, and without the buffer that frames are for."""
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
        module = "builtins" if module == "__builtin__" else module
        full = f"{module}.{name}"
        if len(full) > 200:
            raise pickle.UnpicklingError("it names something with a very long name")
        if self.inert or full in _REAL or is_known(module, name):
            return Name(full)
        raise Forbidden(full)

    def persistent_load(self, pid: Any) -> PersistentId:
        return PersistentId(pid)

    def _call(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, Name) or not isinstance(args, tuple):
            raise pickle.UnpicklingError("it calls something that is not a function")
        self.append(name(*args))

    def _build(self) -> None:
        """Give an object its state. The state of a state dict, in which modules record their versions, is ignored."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Call):
            target.state = state if isinstance(state, dict) else {"": state}
        elif not isinstance(target, dict):
            raise pickle.UnpicklingError(f"it gives a state to a {type(target).__name__}")

    def _set_items(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(_dict(zip(items[::2], items[1::2], strict=True)))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(_dict([(key, value)]))

    def _add_items(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update({_key(item) for item in items})

    dispatch |= {
        pickle.FRAME[0]: lambda self: self.read(8),
        pickle.SETITEMS[0]: _set_items,
        pickle.SETITEM[0]: _set_item,
        pickle.ADDITEMS[0]: _add_items,
        pickle.NEWOBJ[0]: _call,
        pickle.REDUCE[0]: _call,
        pickle.BUILD[0]: _build,
    }


def _dict(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _key(value: Any) -> Any:
    """A key that is quick to hash: a nested tuple may take forever, and large ints can be made to collide."""
    if not isinstance(value, str | bytes | int | float | None | Call | Name) or (
        isinstance(value, int) and not -(2**63) <= value < 2**64
    ):
        raise pickle.UnpicklingError(f"it has a key that is a {type(value).__name__}")
    return value
