from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_project.tracking import journal as journals
from mlflow_project.tracking.journal import Journal, JournalError
from mlflow_project.tracking.operations import EndRun, LogParams, SetTags, StartRun

START = StartRun("a", "parent", 1)
CHILD = StartRun("b", "child", 2, parent="a")


def operations_in(path, offset=None):
    start = journals.read_header(path)[1] if offset is None else offset
    return [operation for operation, _ in journals.read_operations(path, start)[0]]


def test_what_was_appended_is_read_in_order(tmp_path):
    journal = Journal.create(tmp_path / "new" / "journal", "sft", "sqlite:///x.db")
    journal.append(START, CHILD)
    journal.append(LogParams("b", {"cfg/lr": "0.1"}))
    assert operations_in(journal.path) == [START, CHILD, LogParams("b", {"cfg/lr": "0.1"})]
    assert journals.read_header(journal.path)[0].tracking_uri == "sqlite:///x.db"
    assert "-sft-" in journal.path.name


def test_a_run_is_open_until_it_ends(tmp_path):
    journal = Journal.create(tmp_path, "sft", "uri")
    journal.append(START, CHILD)
    assert journal.open_runs == {"a": None, "b": "a"}
    journal.append(EndRun("b", "FINISHED", 3))
    assert journal.open_runs == {"a": None}
    journal.close()
    assert Journal.take_over(journal.path).open_runs == {"a": None}


def test_a_living_owner_keeps_its_journal(tmp_path):
    journal = Journal.create(tmp_path, "sft", "uri")
    assert Journal.take_over(journal.path) is None
    journal.close()
    assert Journal.take_over(journal.path) is not None


def test_a_forked_child_does_not_keep_the_journal(tmp_path):
    journal = Journal.create(tmp_path, "sft", "uri")
    alive_read, alive_write = os.pipe()
    stay_read, stay_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(stay_write)
        os.write(alive_write, b"x")
        os.read(stay_read, 1)  # until the parent has looked
        os._exit(0)
    try:
        os.read(alive_read, 1)
        journal.close()
        assert Journal.take_over(journal.path) is not None
    finally:
        for descriptor in (alive_read, alive_write, stay_read, stay_write):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_a_forked_child_exiting_does_not_release_the_journal(tmp_path):
    journal = Journal.create(tmp_path, "sft", "uri")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert Journal.take_over(journal.path) is None


@given(cut=st.integers(min_value=0))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_tail_is_left_out_and_cut_off_by_the_next_owner(tmp_path, cut):
    journal = Journal.create(tmp_path, "sft", "uri")
    header_end = journal.path.stat().st_size
    wanted = [START, SetTags("a", {"note": "zwölf\nZeilen"}), CHILD]
    ends = []
    for operation in wanted:
        journal.append(operation)
        ends.append(journal.path.stat().st_size)
    journal.close()
    size = header_end + cut % (ends[-1] - header_end + 1)
    os.truncate(journal.path, size)
    complete = wanted[: sum(end <= size for end in ends)]

    assert operations_in(journal.path) == complete
    heir = Journal.take_over(journal.path)
    heir.append(EndRun("a", "KILLED", 5))
    assert operations_in(journal.path) == [*complete, EndRun("a", "KILLED", 5)]
    heir.close()
    journal.path.unlink()


def test_reading_goes_on_where_it_stopped(tmp_path):
    journal = Journal.create(tmp_path, "sft", "uri")
    journal.append(START)
    _, end = journals.read_operations(journal.path, journals.read_header(journal.path)[1])
    assert operations_in(journal.path, end) == []
    journal.append(CHILD)
    assert operations_in(journal.path, end) == [CHILD]


def test_a_limited_read_takes_whole_lines(tmp_path):
    journal = Journal.create(tmp_path, "sft", "uri")
    journal.append(START, CHILD)
    first, end = journals.read_operations(journal.path, journals.read_header(journal.path)[1], limit=1)
    assert [operation for operation, _ in first] == [START]
    assert operations_in(journal.path, end) == [CHILD]


def test_threads_do_not_mix_their_lines(tmp_path):
    journal = Journal.create(tmp_path, "sft", "uri")

    def write(name):
        for number in range(50):
            journal.append(LogParams(name, {"n": str(number)}))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in "abcd":
        numbers = [each.params["n"] for each in operations_in(journal.path) if each.run == name]
        assert numbers == [str(number) for number in range(50)]


@pytest.mark.parametrize("content", [b"no json\n", b"[]\n", b'{"verb":"sft"}\n'])
def test_another_file_is_not_a_journal(tmp_path, content):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="x"):
        journals.read_header(path)


def test_a_newer_format_is_refused(tmp_path):
    journal = Journal.create(tmp_path, "sft", "uri")
    text = journal.path.read_text().replace('"version": 1', '"version": 2')
    journal.path.write_text(text)
    with pytest.raises(JournalError, match="version 2"):
        journals.read_header(journal.path)


def test_damage_in_the_middle_is_named(tmp_path):
    journal = Journal.create(tmp_path, "sft", "uri")
    journal.append(START)
    with open(journal.path, "ab") as file:
        file.write(b"\0\0\0\n")
    with pytest.raises(JournalError, match="byte"):
        operations_in(journal.path)


WRITER = """
import sys
from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.operations import LogMetrics, StartRun
journal = Journal.create(sys.argv[1], "sft", "uri")
journal.append(StartRun("a", "run", 1))
step = 0
while True:
    journal.append(LogMetrics("a", step, step, {"loss": float(step)}))
    print(step, flush=True)
    step += 1
"""


def test_kill_9_loses_nothing_that_append_returned_from(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= 30:
            break
    process.send_signal(signal.SIGKILL)
    announced = [30] + [int(line) for line in process.stdout]
    process.wait()
    (path,) = tmp_path.glob("*.jsonl")
    heir = Journal.take_over(path)
    assert heir is not None
    assert heir.open_runs == {"a": None}
    steps = [operation.step for operation in operations_in(path)[1:]]
    assert steps == list(range(len(steps)))
    assert steps[-1] >= announced[-1]
