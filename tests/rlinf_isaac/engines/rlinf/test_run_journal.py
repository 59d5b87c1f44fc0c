from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.engines.rlinf.run_journal import DRIVER, JournalReader, JournalWriter

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@settings(deadline=None)
@given(values=st.lists(st.dictionaries(st.text(min_size=1).filter(lambda name: name != "kind"), JSON), max_size=5))
def test_what_is_written_is_read_once_and_in_order(tmp_path_factory, values):
    directory = tmp_path_factory.mktemp("journal")
    reader = JournalReader(directory)
    writer = JournalWriter(directory, "EnvGroup-0")
    seen = []
    for each in values:
        writer.write("event", values=each)
        seen += reader.read()
    assert seen == [{"kind": "event", "values": each} for each in values]
    assert list(reader.read()) == []


def test_a_torn_line_is_read_when_it_is_complete(tmp_path):
    reader = JournalReader(tmp_path)
    line = json.dumps({"kind": "episode", "text": "zwölf"}, ensure_ascii=False).encode() + b"\n"
    with open(tmp_path / "worker.jsonl", "wb", buffering=0) as file:
        for end in range(len(line)):
            file.write(line[end : end + 1])
            assert len(list(reader.read())) == (end == len(line) - 1)


def test_the_driver_comes_last_so_that_done_means_done(tmp_path):
    """The driver says `done` after the workers have written; a reader that has seen it has seen theirs."""
    JournalWriter(tmp_path, DRIVER).write("done")
    JournalWriter(tmp_path, "a-worker").write("episode")
    JournalWriter(tmp_path, "z-worker").write("episode")
    assert [line["kind"] for line in JournalReader(tmp_path).read()] == ["episode", "episode", "done"]


def test_a_line_of_a_worker_that_came_between_two_looks_is_given_before_done(tmp_path):
    driver, worker = JournalWriter(tmp_path, DRIVER), JournalWriter(tmp_path, "worker")
    reader = JournalReader(tmp_path).read()
    worker.write("episode", seed=0)
    driver.write("done")
    first = next(reader)  # the driver's file has been looked at
    worker.write("episode", seed=1)
    driver.write("done")
    assert [first["kind"], *(line["kind"] for line in reader)] == ["episode", "done"]


def test_no_directory_is_no_news(tmp_path):
    assert list(JournalReader(tmp_path / "missing").read()) == []


def test_two_writers_of_one_name_append(tmp_path):
    for number in range(2):
        JournalWriter(tmp_path, "same").write("start", number=number)
    assert [line["number"] for line in JournalReader(tmp_path).read()] == [0, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_arrives(tmp_path, value):
    JournalWriter(tmp_path, DRIVER).write("metrics", value=value)
    (line,) = JournalReader(tmp_path).read()
    assert str(line["value"]) == str(value)
