"""A look at the pickles of ``torch.save`` without torch, and without executing anything.

torch reads the values (`checkpoint.convert.source`), but what is wrong with a checkpoint has to be said before torch
is imported, and `torch.load` takes any time and memory that a pickle asks for. So this is Python's own unpickler with
three restrictions: the opcodes are those that torch writes; a name is one of `checkpoint.convert.names`, and stands for
an inert record of how it was called; and keys are texts and numbers, which take no time to hash. The one written in C
would allow only the second of them.
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
_MAX_OPCODES = 7_000_000  # of a state dict with 130 000 tensors; each may take 100 bytes of memory
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
        if self.name.endswith(("bytearray", "Storage")) and any(isinstance(arg, int) for arg in args):
            raise pickle.UnpicklingError("it makes memory of a size that it names")  # which torch would
        make = _REAL.get(self.name)
        return Call(self.name, args) if make is None else make(*args)


@dataclass(frozen=True)
class PersistentId:
    """What torch keeps outside of the pickle: a storage, as the tuple that names it."""

    value: Any


class Forbidden(pickle.UnpicklingError):
    """A pickle named what no state dict needs; its only argument is the name."""


def load(stream: Any, *, inert: bool = False) -> Any:
    """Unpickle one object from where `stream` stands; the stream then stands behind it.

    Args:
        stream: with ``read`` and ``readline``.
        inert: let it name anything: no name is ever imported or called, so that what a config holds besides numbers
            and texts does no harm. Weights name little, and whatever else they name is a reason to refuse them.

    Returns:
        dicts, lists, tuples, numbers and texts; `Call`, `Name` and `PersistentId` in place of everything else.

    Raises:
        Forbidden: it names a class or function that is not listed.
        pickle.UnpicklingError: it is damaged, or no pickle of torch.
    """
    collecting = gc.isenabled()
    gc.disable()  # it would look at all of these small objects again and again, and free none
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
    """Unpickle `data`, as `load`; nothing may follow the object."""
    stream = io.BytesIO(data)
    value = load(stream, inert=inert)
    if stream.read(1):
        raise pickle.UnpicklingError("something follows the pickle")
    return value


_PurePython: Any = pickle._Unpickler  # the one written in Python: its opcodes can be chosen


class _Unpickler(_PurePython):
    dispatch: ClassVar[dict[int, Any]] = {
        getattr(pickle, name)[0]: _PurePython.dispatch[getattr(pickle, name)[0]] for name in _OPCODES.split()
    }

    inert: bool

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
            raise pickle.UnpicklingError("it calls something that is no function")
        self.append(name(*args))

    def _build(self) -> None:
        """State of an object; what modules attach to their state dicts (versions) is left aside."""
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
    """A key that takes no time to hash: nested tuples may take forever, and ints can be made to collide."""
    if not isinstance(value, str | bytes | int | float | None | Call | Name) or (
        isinstance(value, int) and not -(2**63) <= value < 2**64
    ):
        raise pickle.UnpicklingError(f"it has a key that is a {type(value).__name__}")
    return value
