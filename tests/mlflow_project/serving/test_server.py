"""The server against real sockets: OpenPI's protocol, many clients, hostile clients, shutdown."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from faults.bombs import TEXT, bombs
from serving_support import Running, expected, observation, running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mlflow_project.serving.codec import pack, unpack
from mlflow_project.serving.server import Limits


@pytest.fixture
def server(policy_server) -> Running:
    """The shared one: tests only talk to it."""
    return policy_server


class Held:
    """A policy whose answers wait until `release` is set. `asked` tells that the model was called."""

    def __init__(self, policy):
        self._policy, self.max_batch, self.spec, self.metadata = policy, policy.max_batch, policy.spec, policy.metadata
        self.release, self.asked, self.batches = threading.Event(), threading.Event(), []

    def infer(self, requests):
        self.batches.append(len(requests))
        self.asked.set()
        assert self.release.wait(60)
        return self._policy.infer(requests)


@contextmanager
def raw(server: Running, **options: Any) -> Iterator[ClientConnection]:
    """A connection that speaks only what the test says; its metadata has been read."""
    address = f"ws://127.0.0.1:{server.port}"
    with connect(address, compression=None, max_size=None, close_timeout=0.1, **options) as connection:
        unpack(connection.recv(timeout=60))
        yield connection


def halves(message: bytes) -> list[bytes]:
    return [message[: len(message) // 2], message[len(message) // 2 :]]


def ask(server: Running, index: int) -> np.ndarray:
    with server.client() as client:
        return client.infer(observation(index))["actions"]


def refused(server: Running, **headers: str) -> int:
    address = f"ws://127.0.0.1:{server.port}"
    with pytest.raises(InvalidStatus) as error, connect(address, additional_headers=headers):
        pass
    return error.value.response.status_code


class TestProtocol:
    def test_metadata_and_actions(self, server, policy):
        with server.client() as client:
            assert client.metadata == policy.metadata()
            reply = client.infer(observation(0))
            again = client.infer(observation(0))
        np.testing.assert_array_equal(reply["actions"], expected(policy, observation(0)))
        np.testing.assert_array_equal(again["actions"], reply["actions"])
        assert reply["noise_key"] == [0, 5000, 3]
        assert set(reply["policy_timing"]) == {"infer_ms", "batch"}
        assert set(reply["server_timing"]) == {"infer_ms", "queue_ms"}
        assert set(again["server_timing"]) == {"infer_ms", "queue_ms", "prev_total_ms"}

    def test_an_answer_can_be_repeated_by_its_noise_key(self, server):
        sent = observation(0)
        del sent["noise_key"]
        with server.client() as client:
            first, second = client.infer(sent), client.infer(sent)
            repeated = client.infer(sent | {"noise_key": first["noise_key"]})
        assert first["noise_key"] != second["noise_key"]
        assert not np.array_equal(first["actions"], second["actions"])
        np.testing.assert_array_equal(repeated["actions"], first["actions"])

    def test_health(self, server):
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz") as answer:
            assert (answer.status, answer.read()) == (200, b"OK\n")

    @pytest.mark.parametrize(
        ("message", "code"),
        [
            (pack([1, 2]), "bad-message"),
            (pack(observation(0) | {"observation/state": np.zeros(3)}), "observation-state"),
            (pack(observation(0) | {"observation/image": np.zeros((2, 2))}), "observation-image"),
        ],
    )
    def test_a_refused_observation_is_answered_with_text_and_the_next_with_actions(self, server, policy, message, code):
        with raw(server) as connection:
            connection.send(message)
            answer = connection.recv()
            assert isinstance(answer, str)
            assert answer.startswith(f"[{code}] ")
            assert "Traceback" not in answer
            connection.send(pack(observation(1)))
            np.testing.assert_array_equal(unpack(connection.recv())["actions"], expected(policy, observation(1)))

    def test_every_bomb_is_answered_with_its_code_and_the_connection_goes_on(self, server, policy):
        """Those of every kind of msgpack, and text, whole and in fragments."""
        with raw(server) as connection:
            for bomb in bombs(1 << 18):
                text = bomb.name == "text"
                for message in (TEXT * 100, [TEXT] * 100) if text else (bomb.message, halves(bomb.message)):
                    connection.send(message)
                    answer = connection.recv()
                    assert isinstance(answer, str), bomb.name
                    assert answer.startswith(f"[{bomb.code}] "), bomb.name
                    assert len(answer) < 5000, bomb.name
            connection.send(pack(observation(1)))
            np.testing.assert_array_equal(unpack(connection.recv())["actions"], expected(policy, observation(1)))

    def test_the_client_raises_what_the_server_says(self, server):
        with server.client() as client, pytest.raises(RuntimeError, match="observation-missing"):
            client.infer({})


class TestManyClients:
    def test_32_at_once_get_their_own_actions(self, server, policy):
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda index: ask(server, index), range(32)))
        for index, actions in enumerate(answers):
            np.testing.assert_array_equal(actions, expected(policy, observation(index)))

    def test_requests_that_wait_share_a_batch(self, policy):
        held = Held(policy)
        with running(held) as server, ThreadPoolExecutor(1) as pool, ExitStack() as stack:
            first = pool.submit(ask, server, 0)
            assert held.asked.wait(60)
            clients = [stack.enter_context(raw(server)) for _ in range(8)]
            for index, client in enumerate(clients):
                client.send(pack(observation(index)))
            held.release.set()
            first.result()
            for index, client in enumerate(clients):
                reply = unpack(client.recv())
                np.testing.assert_array_equal(reply["actions"], expected(policy, observation(index)))
        assert sum(held.batches) == 9
        assert max(held.batches) > 1

    def test_nobody_is_disturbed_by_malformed_oversized_and_slow_clients(self, policy):
        """They keep at it while 32 others are served."""
        over = threading.Event()

        def malformed() -> int:
            count = 0
            with raw(server) as connection:
                while not over.is_set():
                    connection.send(b"\xc1" * 1000)
                    assert connection.recv().startswith("[bad-message]")
                    count += 1
            return count

        def oversized() -> int:
            count = 0
            while not over.is_set():
                with raw(server) as connection:
                    with suppress(ConnectionClosed):  # the server closes before it has read everything
                        connection.send(b"x" * (2 << 20))
                    with pytest.raises(ConnectionClosed):
                        connection.recv()
                count += 1
            return count

        with (
            running(policy, Limits(max_message=1 << 20)) as server,
            raw(server) as flooding,
            raw(server, max_queue=1) as deaf,
            socket.create_connection(("127.0.0.1", server.port)) as silent,
            ThreadPoolExecutor(40) as pool,
        ):
            # One sends its frame byte by byte, one asks without listening, one does not even finish its handshake.
            silent.sendall(b"GET / HTTP/1.1\r\n")
            flooding.socket.sendall(b"\x82\xff" + (1 << 19).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1000)
            for index in range(20):
                deaf.send(pack(observation(index)))
            trouble = [pool.submit(malformed), pool.submit(oversized)]
            try:
                answers = list(pool.map(lambda index: ask(server, index), range(32)))
            finally:
                over.set()
            assert all(each.result() > 0 for each in trouble)
            flooding.socket.sendall(b"x")  # still connected
        for index, actions in enumerate(answers):
            np.testing.assert_array_equal(actions, expected(policy, observation(index)))

    def test_who_asks_without_end_waits_their_turn(self, policy):
        """A client has one request at work, however many it sends."""
        held = Held(policy)
        with running(held) as server, raw(server) as greedy, ThreadPoolExecutor(1) as pool:
            for index in range(5):
                greedy.send(pack(observation(index)))
            assert held.asked.wait(60)
            other = pool.submit(ask, server, 7)
            held.release.set()
            np.testing.assert_array_equal(other.result(), expected(policy, observation(7)))
            for index in range(5):
                np.testing.assert_array_equal(unpack(greedy.recv())["actions"], expected(policy, observation(index)))

    def test_one_that_breaks_the_policy_spoils_only_its_own_request(self, policy):
        held = Held(policy)
        huge = observation(1) | {"observation/state": np.full(23, 3e38, np.float32)}
        with running(held) as server, raw(server) as first, raw(server) as broken, raw(server) as other:
            first.send(pack(observation(0)))
            assert held.asked.wait(60)
            broken.send(pack(huge))
            other.send(pack(observation(2)))
            with np.errstate(all="ignore"):
                held.release.set()
                assert broken.recv().startswith("[actions-not-finite]")
            np.testing.assert_array_equal(unpack(other.recv())["actions"], expected(policy, observation(2)))

    def test_an_internal_error_is_told_without_a_traceback_and_ends_the_connection(self, policy, caplog):
        class Broken(Held):
            def infer(self, requests):
                raise ZeroDivisionError("secret")

        with running(Broken(policy)) as server, raw(server) as connection:
            connection.send(pack(observation(0)))
            assert connection.recv().startswith("[internal-error] ")
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv()
            assert closed.value.rcvd.code == 1011
        assert "ZeroDivisionError" in caplog.text


class TestLimits:
    def test_one_connection_too_many(self, policy):
        with running(policy, Limits(max_connections=2)) as server:
            with raw(server), raw(server) as second:
                assert refused(server) == 503
                second.send(pack(observation(0)))
                unpack(second.recv())
                with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz") as answer:
                    assert answer.status == 200
            assert len(ask(server, 0)) == policy.config.policy.action_chunk

    def test_api_key(self, policy):
        with running(policy, Limits(api_key="s3cret")) as server:
            assert refused(server) == 401
            assert refused(server, Authorization="Api-Key other") == 401
            assert refused(server, Authorization="Api-Key \u00fc") == 401
            with socket.create_connection(("127.0.0.1", server.port)) as twice:
                lines = ["GET / HTTP/1.1", *2 * ["Authorization: Api-Key s3cret"], "", ""]
                twice.sendall("\r\n".join(lines).encode())
                assert twice.recv(1000).startswith(b"HTTP/1.1 401 ")
            with server.client(api_key="s3cret") as client:
                assert client.metadata == policy.metadata()
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz") as answer:
                assert answer.status == 200

    def test_too_large_an_observation(self, policy):
        with running(policy, Limits(max_message=1 << 20)) as server, raw(server) as connection:
            connection.send(b"x" * ((1 << 20) + 1))
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv()
            assert closed.value.rcvd.code == 1009

    def test_large_messages_take_turns(self, policy):
        """More of them than there are places, with images that are taken and with such that are refused."""
        taken = observation(0, size=800)
        refused = taken | {"observation/state": np.zeros(3)}
        with running(policy) as server, ExitStack() as stack:
            clients = [stack.enter_context(raw(server)) for _ in range(5)]
            for client in clients[1:]:
                client.send(pack(refused))
            clients[0].send(pack(taken))
            assert all(client.recv().startswith("[observation-state]") for client in clients[1:])
            np.testing.assert_array_equal(unpack(clients[0].recv())["actions"], expected(policy, taken))
            clients[1].send(pack(observation(1)))  # it waits for its penalty
            np.testing.assert_array_equal(unpack(clients[1].recv())["actions"], expected(policy, observation(1)))

    def test_a_large_message_that_does_not_end_loses_its_place(self, policy, monkeypatch):
        monkeypatch.setattr("mlflow_project.serving.intake.SLOW_S", 0.1)
        with running(policy) as server, ExitStack() as stack:
            slow = [stack.enter_context(raw(server)) for _ in range(2)]
            for client in slow:
                client.socket.sendall(b"\x82\xff" + (8 << 20).to_bytes(8, "big") + bytes((4 << 20) + 4))
            for client in slow:
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv()
                assert closed.value.rcvd.code == 1008
            with raw(server) as other:
                monkeypatch.undo()
                other.send(pack(observation(0, size=800)))
                unpack(other.recv())

    def test_a_message_of_endless_fragments(self, server):
        with raw(server) as connection:
            with suppress(ConnectionClosed, OSError):
                connection.socket.sendall(b"\x02\x80" + bytes(4) + (b"\x00\x80" + bytes(4)) * 20_000)
            with pytest.raises(ConnectionClosed):
                connection.recv()

    def test_browsers_are_turned_away(self, server):
        """Any web page may open a websocket to 127.0.0.1; it says where it comes from."""
        assert refused(server, Origin="http://example.org") == 403


class TestShutdown:
    def test_a_model_that_hangs_does_not_keep_the_server(self, policy, monkeypatch):
        monkeypatch.setattr("mlflow_project.serving.server.GRACE_S", 0.1)
        held = Held(policy)
        with running(held) as server, raw(server) as busy:
            busy.send(pack(observation(0)))
            assert held.asked.wait(60)
            server.stop()
            server.thread.join(60)
            assert not server.thread.is_alive()
            with pytest.raises(ConnectionClosed):
                busy.recv()
            held.release.set()

    def test_accepted_requests_are_answered_and_connections_closed_with_1001(self, policy):
        held = Held(policy)
        with running(held) as server, raw(server) as busy, raw(server) as idle:
            busy.send(pack(observation(0)))
            assert held.asked.wait(60)
            server.stop()
            with pytest.raises(ConnectionClosed) as closed:
                idle.recv()
            assert closed.value.rcvd.code == 1001
            held.release.set()
            np.testing.assert_array_equal(unpack(busy.recv())["actions"], expected(policy, observation(0)))
            with pytest.raises(ConnectionClosed) as closed:
                busy.recv()
            assert closed.value.rcvd.code == 1001
            server.thread.join(60)
            with pytest.raises(ConnectionRefusedError):
                ask(server, 0)


def test_three_images_of_640_x_480_are_no_large_message():
    from mlflow_project.serving.intake import LARGE, large

    assert large(1) == large(2) == LARGE
    for cameras in (2, 3):
        assert cameras * 640 * 480 * 3 < large(cameras)
