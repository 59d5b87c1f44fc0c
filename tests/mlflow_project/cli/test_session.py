"""What ends a verb: one problem with a cure where the world is at fault, a traceback where we are."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from mlflow_project.cli._session import preflight, show_problem, verb_session
from mlflow_project.cli._trouble import trouble_of
from mlflow_project.tracking.signals import Terminated
from rlinf_isaac.ground.errors import EngineFailed, InvalidJob, Problem


def of(number: int, name: str | None = "/x") -> OSError:
    return OSError(number, os.strerror(number), name) if name else OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (of(errno.ENOSPC, None), "disk-full"),
        (of(errno.EDQUOT), "disk-full"),
        (of(errno.EROFS), "no-permission"),
        (of(errno.EACCES), "no-permission"),
        (of(errno.ENAMETOOLONG), "bad-path"),
        (of(errno.ELOOP), "bad-path"),
        (of(errno.EEXIST), "path-changed"),
        (of(errno.EIO), "io-error"),
        (MemoryError(), "out-of-memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate"), "out-of-memory"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_the_machine_refuses(error, code, capsys):
    with pytest.raises(SystemExit) as end, verb_session():
        raise error
    assert end.value.code == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error {code} ")
    assert "\n  cure " in shown
    with pytest.raises(SystemExit) as end, verb_session(), preflight():
        raise error
    assert end.value.code == 2  # nothing was started


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), of(errno.EBADF, None), RuntimeError("x")], ids=type)
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)), verb_session(), preflight():
        raise error


def test_endless_nesting_is_an_inputs_fault_only_while_it_is_checked():
    with pytest.raises(InvalidJob, match="too-deep"), preflight():
        raise RecursionError
    with pytest.raises(RecursionError), verb_session():
        raise RecursionError


def test_what_a_store_that_is_not_there_says(monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Exception, match="API request") as error:
        MlflowClient("http://bob:hunter2@127.0.0.1:9").get_run("0" * 32)
    problem = trouble_of(error.value)
    assert problem is not None
    assert problem.code == "store-unreachable"
    assert "hunter2" not in problem.cause
    assert "\n" not in problem.cause


@pytest.mark.parametrize(
    ("end", "code", "shown"), [(KeyboardInterrupt(), 130, "interrupted"), (Terminated(15), 143, "ended by SIGTERM")]
)
def test_a_signal_ends_a_verb_with_a_word(end, code, shown, capsys):
    with pytest.raises(SystemExit) as raised, verb_session():
        raise end
    assert raised.value.code == code
    assert capsys.readouterr().err == f"{shown}; the same command goes on where this one stopped\n"


def test_other_lines_of_a_problem_are_marked(capsys):
    show_problem(Problem("x", "a\n  b\x1b[2J\ncure c", "d\ne"))
    assert capsys.readouterr().err == "error x a\n  |   b\\x1b[2J\n  | cure c\n  cure d\n  | e\n"
    with pytest.raises(SystemExit), verb_session():
        raise EngineFailed("it died:\nthe log \x1b[2J")
    assert capsys.readouterr().err == "error EngineFailed: it died:\n  | the log \\x1b[2J\n"


def test_a_reader_that_goes_is_no_error():
    code = (
        "from mlflow_project.cli._session import stdout, verb_session\n"
        "with verb_session():\n"
        "    for _ in range(100_000): stdout.print('a line')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + 13


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device that is always full is Linux's")
def test_an_output_that_is_full():
    code = (
        "from mlflow_project.cli._session import stdout, verb_session\nwith verb_session(): stdout.print('x' * 99999)\n"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr.startswith("error disk-full No space left on device")
