from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.ground import lines

TEXTS = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])))
TORN = st.binary(max_size=9).map(lambda data: data.replace(b"\n", b""))


@settings(deadline=None, max_examples=50)
@given(TEXTS, TORN)
def test_a_torn_last_line_is_cut_off(texts, torn):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "lines"
        for text in texts:
            lines.append(path, text)
        with open(path, "ab") as file:
            file.write(torn)
        assert lines.read(path) == texts
        lines.append(path, "next")
        assert lines.read(path) == [*texts, "next"]


@settings(deadline=None, max_examples=50)
@given(TEXTS, st.data())
def test_a_file_cut_anywhere_holds_its_whole_lines(texts, data):
    """A kill can end a write at any byte, and a reader that follows sees what the heir keeps."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "lines"
        lines.append(path, *texts)
        size = data.draw(st.integers(0, path.stat().st_size))
        ends = [end for _, end in lines.follow(path)]
        os.truncate(path, size)
        whole = texts[: sum(end <= size for end in ends)]
        assert [text for text, _ in lines.follow(path)] == whole
        assert path.stat().st_size == size  # following changes nothing
        assert lines.read(path) == whole
        assert path.stat().st_size == max([end for end in ends if end <= size], default=0)


@settings(deadline=None, max_examples=50)
@given(TEXTS)
def test_following_gives_every_line_once_however_the_bytes_arrive(texts):
    with tempfile.TemporaryDirectory() as directory:
        source, path = Path(directory) / "source", Path(directory) / "lines"
        lines.append(source, *texts)
        path.write_bytes(b"")
        seen, offset = [], 0
        with open(path, "ab", buffering=0) as file:
            for byte in source.read_bytes():
                file.write(bytes([byte]))
                for text, end in lines.follow(path, offset):
                    seen.append(text)
                    offset = end
        assert seen == texts


def test_a_missing_file_has_no_lines(tmp_path):
    assert lines.read(tmp_path / "none") == []
    assert lines.rewind(tmp_path / "none", lambda line: False) == []
    assert list(tmp_path.iterdir()) == []


@given(TEXTS, st.sets(st.integers(0, 9)))
@settings(deadline=None, max_examples=30)
def test_rewind_keeps_what_holds(texts, chosen):
    wanted = {texts[i] for i in chosen if i < len(texts)}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "lines"
        lines.append(path, *texts)
        kept = [text for text in texts if text in wanted]
        assert lines.rewind(path, wanted.__contains__) == kept
        assert lines.read(path) == kept


def test_rewind_leaves_a_file_alone_of_which_everything_holds(tmp_path):
    path = tmp_path / "lines"
    lines.append(path, "a", "b")
    before = path.stat().st_ino
    lines.rewind(path, lambda line: True)
    assert path.stat().st_ino == before


def test_a_new_file_is_not_one_that_is_there(tmp_path):
    lines.append(tmp_path / "lines", "a")
    with pytest.raises(FileExistsError):
        lines.open_to_append(tmp_path / "lines", new=True)


def limited(path: Path) -> None:
    """Append a short line, then a long one to a file that may not grow beyond 100 bytes; in a process of its own."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    lines.append(path, "short")
    with pytest.raises(OSError, match="too large"):
        lines.append(path, "also short", "x" * 200)


def test_a_full_disk_leaves_no_part_of_the_lines(tmp_path):
    path = tmp_path / "lines"
    child = os.fork()
    if child == 0:
        try:
            limited(path)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert path.read_bytes() == b"short\n"


def test_every_line_whose_append_returned_survives_a_kill(tmp_path):
    path = tmp_path / "lines"
    code = """
import sys
from rlinf_isaac.ground import lines
for number in range(10**9):
    lines.append(sys.argv[1], f"line {number}")
    print(number, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(20):
        assert child.stdout.readline(), "the child ended before it was killed"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    found = lines.read(path)
    assert len(found) >= 20
    assert found == [f"line {number}" for number in range(len(found))]
