"""Files of others: only regular ones, no larger than their kind, and JSON that every reader takes alike."""

from __future__ import annotations

import errno
import json

import pytest
from faults.attack import SPECIAL
from faults.hostile_json import BODIES
from hypothesis import given
from hypothesis import strategies as st

from rlinf_isaac.ground.reading import (
    MAX_DEPTH,
    TooLarge,
    check_regular,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_lines,
)

READERS = (open_regular, check_regular, lambda path: read_bytes(path, 10), lambda path: list(read_lines(path, 10)))
FINE = ("a list", "a number", "null", "a text", "a number beyond all numbers", "commands for the terminal")
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize("read", READERS, ids=("open", "check", "bytes", "lines"))
@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_at_once(kind, read, tmp_path):
    SPECIAL[kind](tmp_path / "x")
    with pytest.raises(OSError) as error:  # noqa: PT011  (each has its own number)
        read(tmp_path / "x")
    assert error.value.errno in (errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENOENT)


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a directory", "a link to a device without end"])
def test_it_is_said_what_it_is(kind, tmp_path):
    SPECIAL[kind](tmp_path / "x")
    with pytest.raises(OSError, match=r"it is a (pipe|socket|directory|device), not a file"):
        open_regular(tmp_path / "x")


def test_a_name_that_no_file_can_have():
    with pytest.raises(OSError, match="no file can have that name"):
        check_regular("a\0b")


def test_links_to_files_are_followed(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    assert read_bytes(tmp_path / "b", 1) == b"x"


def test_a_file_has_at_most_so_many_bytes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345\n789")
    assert read_bytes(path, 9) == b"12345\n789"
    assert list(read_lines(path, 9, longest=6)) == [b"12345", b"789"]
    for read in (lambda: read_bytes(path, 8), lambda: next(read_lines(path, 8)), lambda: next(read_lines(path, 9, 4))):
        with pytest.raises(TooLarge, match="bytes"):
            read()


def test_the_size_is_looked_at_before_anything_is_read(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLarge):
        read_bytes(tmp_path / "x", 1000)


def test_a_file_that_says_nothing_of_its_size():
    """The kernel's files have none, and yet bytes."""
    with pytest.raises(TooLarge):
        read_bytes("/proc/self/status", 10)


@pytest.mark.parametrize("name", BODIES)
def test_documents(name, tmp_path):
    (tmp_path / "x").write_bytes(BODIES[name])
    if name in FINE:
        read_json(tmp_path / "x", 1 << 30)
        return
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "x", 1 << 30)


@given(json_values)
def test_what_json_can_say_is_read_as_it_was_written(value):
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def test_the_depth_that_is_allowed():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="too deeply"):
        parse_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_numbers_that_json_does_not_have_only_where_they_are_asked_for():
    assert parse_json("[Infinity]", finite=False) == [float("inf")]
    with pytest.raises(ValueError, match="Infinity"):
        parse_json("[Infinity]")
