"""One thing for one claim, in whatever order the steps of several clients come."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from mlflow_project.tracking.answers import Unreachable
from mlflow_project.tracking.unique import COUNTS, SUPERSEDED, Models, Runs, settle, tidy

OWN = "f" * 32


class Table:
    """What a store does, one atomic step at a time: rows with a claim that is written once."""

    def __init__(self) -> None:
        self.rows: dict[str, str | None] = {}
        self.deleted: set[str] = set()

    def view(self, seed: int) -> View:
        return View(self, random.Random(seed))


class View:
    """One client's view of a table; `pause` is called before each of its steps."""

    def __init__(self, table: Table, generator: random.Random) -> None:
        self.table, self.generator = table, generator
        self.pause: Callable[[], None] = lambda: None

    def find(self) -> Mapping[str, str | None]:
        self.pause()
        return {key: claim for key, claim in self.table.rows.items() if key not in self.table.deleted}

    def create(self) -> None:
        self.pause()
        self.table.rows[f"{self.generator.getrandbits(64):016x}"] = None

    def claim(self, identifier: str, value: str) -> str | None:
        self.pause()
        if identifier in self.table.deleted:
            return None
        if self.table.rows[identifier] is None:
            self.table.rows[identifier] = value
        return self.table.rows[identifier]

    def delete(self, identifier: str) -> None:
        self.pause()
        assert self.table.rows[identifier] == SUPERSEDED, "only what cannot count is removed"
        self.table.deleted.add(identifier)


def interleaved(table: Table, clients: int, choose: Callable[[list[int]], int]) -> list[str]:
    """Let clients settle side by side; `choose` says whose step is next. Each waits in a greenlet-like thread of one
    turn at a time, so an order can be repeated."""
    import threading

    turns = [threading.Semaphore(0) for _ in range(clients)]
    back, results = threading.Semaphore(0), [""] * clients
    running = set(range(clients))

    def work(number: int) -> None:
        view = table.view(number + 1)

        def pause() -> None:
            back.release()
            turns[number].acquire()

        view.pause = pause
        turns[number].acquire()
        results[number] = settle(view)
        running.discard(number)
        back.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while running:
        turns[choose(sorted(running))].release()
        back.acquire()
    for thread in threads:
        thread.join()
    return results


@settings(max_examples=300)
@given(st.integers(2, 4), st.lists(st.integers(0, 3), max_size=80))
def test_all_clients_agree_in_every_order(clients, order):
    table, steps = Table(), iter(order)
    counter = [0]

    def choose(running: list[int]) -> int:
        counter[0] += 1
        return running[next(steps, counter[0]) % len(running)]

    results = interleaved(table, clients, choose)
    assert len(set(results)) == 1
    assert [key for key, claim in table.rows.items() if claim == COUNTS] == [results[0]]
    tidy(table.view(0))
    assert set(table.rows) - table.deleted == {results[0]}


def test_a_creation_that_comes_late_is_removed():
    table = Table()
    counting = settle(table.view(1))
    table.view(2).create()
    tidy(table.view(3))
    assert set(table.rows) - table.deleted == {counting}


def test_a_store_that_does_not_show_what_it_creates_is_given_up():
    view = Table().view(1)
    view.create = lambda: None
    with pytest.raises(Unreachable, match="does not show"):
        settle(view)


@pytest.fixture(params=["runs", "models"])
def things(request, store) -> Iterator[Runs | Models]:
    """The real things of a real store."""
    client = MlflowClient(store)
    tags = {"own": OWN}
    if request.param == "runs":
        yield Runs(client, "0", "own", OWN, lambda: client.create_run("0", tags=tags))
    else:
        yield Models(client, "0", "own", OWN, lambda: client.create_logged_model("0", name="m", tags=tags))


def test_mlflow_writes_a_claim_once(things):
    things.create()
    ((identifier, claim),) = things.find().items()
    assert claim is None
    assert things.claim(identifier, COUNTS) == COUNTS
    assert things.claim(identifier, SUPERSEDED) == COUNTS
    assert things.find() == {identifier: COUNTS}


def test_what_is_deleted_in_mlflow_is_not_found_and_takes_no_claim(things):
    things.create()
    things.create()
    first, second = things.find()
    things.claim(first, SUPERSEDED)
    things.delete(first)
    assert set(things.find()) == {second}
    assert things.claim(first, COUNTS) in (SUPERSEDED, None)
    assert settle(things) == second


def test_a_model_that_is_finished_counts_without_a_claim(store):
    client = MlflowClient(store)
    tags = {"own": OWN}
    old = client.create_logged_model("0", name="old", tags=tags).model_id
    client.finalize_logged_model(old, "READY")
    later = client.create_logged_model("0", name="later", tags=tags).model_id
    client.finalize_logged_model(later, "READY")
    assert settle(Models(client, "0", "own", OWN, lambda: None)) == old
    assert {model.model_id for model in client.search_logged_models(["0"])} == {old, later}, "nothing is taken away"
