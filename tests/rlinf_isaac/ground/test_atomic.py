from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.ground import atomic
from rlinf_isaac.ground.errors import InvalidJob


def killed(code: str, *args: object, reports: int = 1) -> subprocess.Popen[str]:
    """Run `code` in a child that prints a line per piece of work; kill -9 it after `reports` lines."""
    command = [sys.executable, "-c", "from rlinf_isaac.ground import atomic\nimport sys\n" + code, *map(str, args)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(reports):
        assert child.stdout.readline(), "the child ended before it was killed"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    return child


def hidden(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("."))


HALF_A_DIRECTORY = """
with atomic.new_directory(sys.argv[1], replace=True) as directory:
    (directory / "half").write_text("x")
    print("half", flush=True)
    sys.stdin.read()  # until killed: the parent never closes it
    while True: pass
"""


class TestNewDirectory:
    def test_appears_whole_with_parents(self, tmp_path):
        target = tmp_path / "a" / "b"
        with atomic.new_directory(target) as directory:
            (directory / "sub").mkdir()
            (directory / "sub" / "file").write_text("content")
            assert not target.exists()
            assert directory.parent == target.parent, "must be on the same file system"
        assert (target / "sub" / "file").read_text() == "content"
        assert hidden(target.parent) == []

    def test_exception_leaves_nothing(self, tmp_path):
        def fail() -> None:
            with atomic.new_directory(tmp_path / "x") as directory:
                (directory / "file").write_text("content")
                raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            fail()
        assert list(tmp_path.iterdir()) == []

    def test_refuses_an_existing_name_unless_told_to_replace(self, tmp_path):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "old").write_text("old")
        with pytest.raises(FileExistsError, match="exists already"), atomic.new_directory(tmp_path / "x"):
            pass
        assert (tmp_path / "x" / "old").exists()
        with atomic.new_directory(tmp_path / "x", replace=True) as directory:
            (directory / "new").write_text("new")
            assert (tmp_path / "x" / "old").exists(), "the old one stays until the new one is complete"
        assert [path.name for path in (tmp_path / "x").iterdir()] == ["new"]
        assert hidden(tmp_path) == []

    def test_replaces_where_the_file_system_cannot_exchange(self, tmp_path, monkeypatch):
        monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: object())
        self.test_refuses_an_existing_name_unless_told_to_replace(tmp_path)

    def test_failed_replacement_keeps_the_old_one(self, tmp_path):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "old").write_text("old")
        with pytest.raises(ZeroDivisionError), atomic.new_directory(tmp_path / "x", replace=True):
            _ = 1 / 0
        assert (tmp_path / "x" / "old").read_text() == "old"

    @pytest.mark.parametrize("existing", [False, True])
    def test_kill_leaves_old_or_nothing_and_the_next_writer_cleans_up(self, tmp_path, existing):
        target = tmp_path / "x"
        if existing:
            target.mkdir()
            (target / "old").write_text("old")
        killed(HALF_A_DIRECTORY, target)
        assert target.exists() == existing
        assert len(hidden(tmp_path)) == 1
        with atomic.new_directory(target, replace=True) as directory:
            (directory / "new").write_text("new")
        assert [path.name for path in target.iterdir()] == ["new"]
        assert hidden(tmp_path) == []

    @pytest.mark.slow
    def test_killed_replacer_never_leaves_a_gap(self, tmp_path):
        """At any moment of many replacements a kill leaves one complete directory under the name."""
        code = """
number = 0
while True:
    with atomic.new_directory(sys.argv[1], replace=True) as directory:
        for name in "abc": (directory / name).write_text(str(number))
    number += 1
    print(number, flush=True)
"""
        for reports in range(1, 31):
            killed(code, tmp_path / "x", reports=reports)
            contents = {(tmp_path / "x" / name).read_text() for name in "abc"}
            assert len(contents) == 1
        with atomic.new_directory(tmp_path / "x", replace=True):
            pass
        assert hidden(tmp_path) == []


class TestWriteFile:
    def test_replaces(self, tmp_path):
        path = tmp_path / "file"
        atomic.write_file(path, "text \u2028")
        atomic.write_file(path, b"\x00bytes")
        assert path.read_bytes() == b"\x00bytes"
        assert hidden(tmp_path) == []

    def test_failure_keeps_the_old_content(self, tmp_path, monkeypatch):
        path = tmp_path / "file"
        atomic.write_file(path, "old")

        def disk_full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", disk_full)
        with pytest.raises(OSError, match="No space"):
            atomic.write_file(path, "new")
        assert path.read_text() == "old"
        assert hidden(tmp_path) == []

    def test_kill_leaves_a_whole_file_and_the_next_writer_cleans_up(self, tmp_path):
        path = tmp_path / "file"
        code = """
for number in range(10**9):
    atomic.write_file(sys.argv[1], str(number % 10) * 100_000)
    print(number, flush=True)
"""
        for reports in (1, 2, 5, 9):
            killed(code, path, reports=reports)
            content = path.read_text()
            assert len(content) == 100_000
            assert len(set(content)) == 1
        atomic.write_file(path, "end")
        assert hidden(tmp_path) == []

    @pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
    def test_modes_follow_the_umask(self, tmp_path, umask, mode):
        before = os.umask(umask)
        try:
            atomic.write_file(tmp_path / "file", "x")
            with atomic.new_directory(tmp_path / "directory") as directory:
                (directory / "inner").write_text("x")
        finally:
            os.umask(before)
        assert (tmp_path / "file").stat().st_mode & 0o777 == mode
        assert (tmp_path / "directory" / "inner").stat().st_mode & 0o777 == mode
        assert (tmp_path / "directory").stat().st_mode & 0o777 == 0o777 & ~umask


class TestRemoveOrphans:
    def test_keeps_what_living_processes_and_other_names_own(self, tmp_path):
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        orphan, alive = f".x.tmp-{dead.pid}-0a1b2c3d", f".x.tmp-{os.getpid()}-0a1b2c3d"
        others = [f".y.tmp-{dead.pid}-0a1b2c3d", ".x.tmp-notapid-0a1b2c3d", "x", alive]
        for name in [orphan, *others]:
            (tmp_path / name).write_text("")
        assert atomic.remove_orphans(tmp_path / "x") == [tmp_path / orphan]
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)

    def test_no_parent_directory(self, tmp_path):
        assert atomic.remove_orphans(tmp_path / "nowhere" / "x") == []


class TestLines:
    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))), st.binary(max_size=9))
    def test_torn_last_line_is_cut_off(self, lines, torn):
        torn = torn.replace(b"\n", b"")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "lines"
            for line in lines:
                atomic.append_line(path, line)
            with open(path, "ab") as file:
                file.write(torn)
            assert atomic.read_lines(path) == lines
            atomic.append_line(path, "next")
            assert atomic.read_lines(path) == [*lines, "next"]

    def test_missing_file_has_no_lines(self, tmp_path):
        assert atomic.read_lines(tmp_path / "none") == []

    def test_every_line_whose_append_returned_survives_a_kill(self, tmp_path):
        path = tmp_path / "lines"
        code = """
for number in range(10**9):
    atomic.append_line(sys.argv[1], f"line {number}")
    print(number, flush=True)
"""
        killed(code, path, reports=20)
        lines = atomic.read_lines(path)
        assert len(lines) >= 20
        assert lines == [f"line {number}" for number in range(len(lines))]


class TestLocked:
    def test_one_process_at_a_time_and_released_by_a_kill(self, tmp_path):
        code = """
with atomic.locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
        command = [sys.executable, "-c", "from rlinf_isaac.ground import atomic\nimport sys\n" + code, str(tmp_path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(InvalidJob, match="output-busy"), atomic.locked(tmp_path):
            pass
        child.kill()
        child.wait()
        with atomic.locked(tmp_path):
            pass


class TestClaimed:
    CODE = """
import sys
from rlinf_isaac.ground import atomic
with atomic.claimed(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""

    def test_one_process_at_a_time_and_released_by_a_kill(self, tmp_path):
        path = tmp_path / "new" / "output"
        child = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(InvalidJob, match="output-busy"), atomic.claimed(path):
            pass
        child.kill()
        child.wait()
        with atomic.claimed(path), atomic.new_directory(path) as directory:
            (directory / "a").touch()
        assert [each.name for each in path.parent.iterdir()] == ["output"]

    def test_a_lock_that_its_holder_has_just_removed_is_nobodys(self, tmp_path, monkeypatch):
        """Another process opened the file before it was removed, and locked it afterwards."""
        name = tmp_path / ".output.lock"
        lock, removed = atomic._lock, []

        def lock_late(file, place):
            if not removed:
                removed.append(name.unlink())
            lock(file, place)

        monkeypatch.setattr(atomic, "_lock", lock_late)
        with atomic.claimed(tmp_path / "output"):
            assert name.exists()
            with pytest.raises(InvalidJob, match="output-busy"), atomic.claimed(tmp_path / "output"):
                pass


def test_a_directory_that_another_process_has_made_meanwhile(tmp_path):
    def make(path):
        with atomic.new_directory(path):
            path.mkdir()
            (path / "theirs").touch()

    with pytest.raises(FileExistsError, match="meanwhile"):
        make(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
