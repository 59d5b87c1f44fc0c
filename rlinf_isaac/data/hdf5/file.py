"""Opens an HDF5 file that is not trusted. Whatever is read lies in the file itself and has a plausible size.

HDF5 can refer to other files in four ways: external links, soft links through them, raw data in external files, and
virtual datasets. All four are refused, because a stranger's file must not choose what is read on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.ground import reading
from rlinf_isaac.ground.errors import DatasetError, InvalidJob, Problem

if TYPE_CHECKING:
    import h5py

RESTORE = "copy the file again from where it was recorded, or record it again"
MOST_LINKS = 8
"""Longest chain of soft links that is followed."""
MOST_TIMES = 1000
"""Largest ratio of the unpacked data to the size of the file. gzip, with which IsaacLab and robomimic compress, packs
at most 1030 times. Up to `_FEW_BYTES` are always accepted."""
_FEW_BYTES = 64_000_000
MOST_CHUNK_BYTES = 1 << 28
"""Largest unpacked chunk of an array: HDF5 unpacks a chunk as a whole, however little of it is read."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """The open file, for reading.

    Raises:
        InvalidJob: h5py is not installed.
        DatasetError: the file is missing, is no HDF5, or is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        cause = f"{path} is HDF5, which only h5py reads: {error}"
        raise InvalidJob.of("no-h5py", cause, "run pip install 'rlinf-isaac[hdf5]'") from error
    try:
        reading.check_regular(path)
        with reading.open_regular(path) as file:
            empty = not file.read(1)
    except FileNotFoundError as error:
        cause = f"there is no file {path}"
        raise DatasetError.of("hdf5-missing", cause, "give the path of an HDF5 file") from error
    except OSError as error:
        cause = f"{path}: {error.strerror or error}"
        raise DatasetError.of("not-hdf5", cause, "give the path of an HDF5 file") from error
    if empty or not h5py.is_hdf5(path):
        cause = f"{path} is {'empty' if empty else 'no HDF5 file: it does not begin like one'}"
        raise DatasetError.of("not-hdf5", cause, "give a file that IsaacLab or robomimic has written")
    with hdf5_errors(path):
        opened = h5py.File(path, "r", locking="best-effort")
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """Turns the exceptions of h5py while it reads `path` into a DatasetError. Only reading belongs into the block."""
    try:
        yield
    except BlockingIOError as error:
        cause = f"{path} is being written by another process"
        raise DatasetError.of("hdf5-busy", cause, "wait until its recording has ended") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, UnicodeError) as error:
        cause = f"{path} cannot be read: {_line(error)}"
        raise DatasetError.of("hdf5-damaged", cause, RESTORE) from error


def find(start: h5py.Group, path: str, links: int = 0) -> h5py.Group | h5py.Dataset | None:
    """The group or array at a path, which may have slashes; None if there is none. Must be called within `hdf5_errors`.

    Args:
        start: where a relative path begins.
        path: names, separated by slashes; from the file's root if it begins with one.
        links: how many soft links led here.

    Raises:
        DatasetError: a link leads out of the file, to nothing, or in a circle.
    """
    import h5py

    here: Any = start.file["/"] if path.startswith("/") else start
    for name in filter(None, path.split("/")):
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(name, getlink=True)
        where = f"{here.file.filename}: {here.name.rstrip('/')}/{name}"
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            raise _refused_link(f"{where} is a link to another file, {link.filename}")
        if isinstance(link, h5py.SoftLink):
            if links == MOST_LINKS:
                raise _refused_link(f"{where} is the end of more than {MOST_LINKS} links, or of a circle of them")
            here = find(here, link.path, links + 1)
            if here is None:
                raise _refused_link(f"{where} is a link to {link.path}, where nothing is")
        else:
            here = here[name]
    return here if isinstance(here, h5py.Group | h5py.Dataset) else None


def storage_problem(array: h5py.Dataset) -> Problem | None:
    """What makes an array unfit to be read: data elsewhere, a filter that is missing, or huge chunks.

    Must be called within `hdf5_errors`.
    """
    import h5py

    where = f"{array.file.filename}: {array.name}"
    if array.is_virtual or array.external:
        cause = f"{where} has its data in another file"
        return Problem("hdf5-elsewhere", cause, "copy the data into one file, for example with h5repack")
    plist = array.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        filter_id, _, _, name = plist.get_filter(number)
        if not h5py.h5z.filter_avail(filter_id):
            packer = name.decode(errors="replace") or f"filter {filter_id}"
            cause = f"{where} is compressed by {packer}, which h5py lacks"
            return Problem("hdf5-filter", cause, "compress it with gzip, for example with h5repack -f GZIP=4")
    if array.chunks is not None:
        chunk = array.dtype.itemsize
        for length in array.chunks:
            chunk *= length
        if chunk > MOST_CHUNK_BYTES:
            cause = f"{where} has chunks of {chunk} bytes, more than anybody records at once"
            return Problem("hdf5-expands", cause, RESTORE)
    return None


def expansion_problem(path: Path, unpacked: int) -> Problem | None:
    """A problem if `unpacked` bytes of data are more than a file of this size can hold."""
    size = path.stat().st_size
    if unpacked <= max(MOST_TIMES * size, _FEW_BYTES):
        return None
    cause = f"{path} has {size} bytes, and claims to hold {unpacked} bytes of data"
    return Problem("hdf5-expands", cause, RESTORE)


def text_of(value: Any) -> str | None:
    """The text that an attribute or an entry holds; None for anything else. Raises ValueError if it is not UTF-8."""
    if isinstance(value, bytes):
        return value.decode()
    return str(value) if isinstance(value, str) else None


def _refused_link(cause: str) -> DatasetError:
    return DatasetError.of("hdf5-link", cause, "copy what it leads to into the file, for example with h5copy")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."
