"""What hostile clients of the policy server cost the others: bombs, fuzzed messages, many clients, a stop under load.

    python benchmarks/serving_attack.py CHECKPOINT [--rounds 1] [--seconds 0.5] [--mib 15.5]

Four clients ask all the time, each again 50 ms after its answer, and one asks for /healthz every 10 ms, in processes
of their own. Meanwhile every bomb of ``tests/faults/bombs.py`` is sent, first once and then on five connections at
once, after `--seconds` without. Printed is what the clients waited whose requests met a bomb, however short, and those
whose did not; the same of /healthz; and how much the server's memory grew at most. So calm and attack take turns, and
compare on a machine that has other work as well.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from mlflow_project.serving.codec import pack, unpack

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from faults.bombs import TEXT, bombs

CLIENTS, TOGETHER = 4, 5
KINDS = ("no bomb", "one bomb", "five bombs")
Waits = list[tuple[float, float]]
"""(when it was sent, milliseconds until the answer) of each request."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="without a bomb, before each")
    parser.add_argument("--mib", type=float, default=15.5, help="of a bomb")
    arguments = parser.parse_args()
    attack(arguments)
    with serving(arguments.checkpoint) as (port, _):
        fuzz(port, 10_000)
    with serving(arguments.checkpoint, "--max-connections", "256") as (port, _):
        crowd(port, 200)
    with serving(arguments.checkpoint) as (port, process):
        stop_under_load(port, process, 20)


@contextmanager
def serving(checkpoint: str, *options: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Port and process of a server."""
    command = [sys.executable, "-m", "mlflow_project.cli", "serve", checkpoint, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = next(int(line.rpartition(":")[2]) for line in process.stdout if "ws://" in line)
        try:
            yield port, process
        finally:
            process.terminate()


def attack(arguments: argparse.Namespace) -> None:
    """Each bomb once alone and once on five connections at once, with a stretch without before each."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; bombs of {arguments.mib} MiB")
    print(f"{'':12}    seconds requests   p50 ms   p99 ms   max ms  /healthz p50   p99    max    memory MB")
    phases: list[Phase] = []
    with serving(arguments.checkpoint) as (port, process), measured(port) as results:
        time.sleep(2)
        for _ in range(arguments.rounds):
            throw(port, process.pid, arguments, phases)
    asked, probed = results
    grown = {kind: max(phase.grown for phase in phases if phase.kind == kind) for kind in KINDS}
    calm = None
    for kind in KINDS:
        waits, health = (during(each, phases, kind) for each in (asked, probed))
        seconds = sum(phase.end - phase.begin for phase in phases if phase.kind == kind)
        p50, p99, *of_health = *np.percentile(waits, [50, 99]), *np.percentile(health, [50, 99])
        print(f"{kind:12} {seconds:10.1f} {len(waits):8} {p50:8.1f} {p99:8.1f} {max(waits):8.1f}", end=" ")
        print(f"{of_health[0]:12.1f} {of_health[1]:6.1f} {max(health):6.1f} {grown[kind]:+12.0f}", end="")
        print("" if calm is None else f"    p50 x {p50 / calm[0]:.2f}, p99 x {p99 / calm[1]:.2f}")
        calm = calm or (p50, p99)
    print(f"load {os.getloadavg()[0]:.1f}")


class Phase(NamedTuple):
    """A stretch of one kind, and by how many MB the server's memory was at most above what it was at first."""

    kind: str
    begin: float
    end: float
    grown: float


def during(waits: Waits, phases: list[Phase], kind: str) -> list[float]:
    """Milliseconds of the requests that were on their way in a phase of this kind, if only for a part of it; without
    bombs: of those that no bomb met."""
    spans = [(phase.begin, phase.end) for phase in phases if (phase.kind == kind) == (kind != KINDS[0])]
    met = [any(sent < end and sent + ms / 1e3 > begin for begin, end in spans) for sent, ms in waits]
    inside = [phases[0].begin <= sent <= phases[-1].end for sent, _ in waits]
    wanted = [not each and within for each, within in zip(met, inside, strict=True)] if kind == KINDS[0] else met
    return [ms for (_, ms), is_wanted in zip(waits, wanted, strict=True) if is_wanted]


def memory(pid: int, field: str = "VmRSS") -> float:
    """MB that the server has, or (VmHWM) has had since it was asked for VmRSS."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    if field == "VmRSS":
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins here
    return int(found[1]) / 1e3


@contextmanager
def measured(port: int) -> Iterator[list[Waits]]:
    """What the clients and /healthz waited inside the block; filled in when it ends."""
    context = multiprocessing.get_context("spawn")
    over, ready = context.Event(), context.Barrier(3)
    results: list[Waits] = []
    with context.Pool(2, _share, (over, ready)) as pool:
        working = [pool.apply_async(_ask, (port,)), pool.apply_async(_probe, (port,))]
        ready.wait()
        yield results
        over.set()
        results += [each.get() for each in working]


_shared: Any = None


def _share(*shared: Any) -> None:
    global _shared
    _shared = shared


def _ask(port: int) -> Waits:
    return asyncio.run(_ask_all(port))


async def _ask_all(port: int) -> Waits:
    from websockets.asyncio.client import connect

    over, ready = _shared

    async def ask(index: int) -> Waits:
        waits: Waits = []
        async with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as connection:
            message = pack(observation(unpack(await connection.recv(decode=False)), index))
            if index == 0:
                await asyncio.to_thread(ready.wait)
            while not over.is_set():
                sent = time.monotonic()
                await connection.send(message)
                unpack(await connection.recv(decode=False))
                waits.append((sent, 1e3 * (time.monotonic() - sent)))
                await asyncio.sleep(0.05)
        return waits

    return [each for waits in await asyncio.gather(*map(ask, range(CLIENTS))) for each in waits]


def _probe(port: int) -> Waits:
    over, ready = _shared
    ready.wait()
    waits: Waits = []
    while not over.is_set():
        sent = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
            answer.read()
        waits.append((sent, 1e3 * (time.monotonic() - sent)))
        time.sleep(0.01)
    return waits


def observation(metadata: dict[str, Any], index: int) -> dict[str, Any]:
    random = np.random.default_rng(index)
    return {
        "observation/image": random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        "observation/wrist_image": random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        "observation/state": random.normal(0, 0.1, len(metadata["state_names"])).astype(np.float32),
    }


@contextmanager
def connections(port: int, count: int) -> Iterator[tuple[list[ClientConnection], dict[str, Any]]]:
    """That many, and what the server says about itself."""
    with ExitStack() as stack:
        address = f"ws://127.0.0.1:{port}"
        options: dict[str, Any] = {"compression": None, "max_size": None, "close_timeout": 1}
        opened = [stack.enter_context(connect(address, **options)) for _ in range(count)]
        for each in opened:
            metadata = unpack(each.recv(decode=False))
        yield opened, metadata


def throw(port: int, process: int, arguments: argparse.Namespace, phases: list[Phase]) -> None:
    """Every bomb, once on one connection and once on five at once; each is answered with its code."""
    with connections(port, 1 + TOGETHER) as (opened, metadata), ThreadPoolExecutor(TOGETHER) as pool:
        size = int(arguments.mib * 2**20)
        for bomb in bombs(size, metadata["image_size"], len(metadata["state_names"])):
            message = bomb.message if bomb.name != "text" else TEXT * (size // len(TEXT.encode()))
            for kind, targets in (("one bomb", opened[:1]), ("five bombs", opened[1:])):
                before, begin = memory(process), time.monotonic()
                time.sleep(arguments.seconds)
                phases.append(Phase(KINDS[0], begin, time.monotonic(), memory(process, "VmHWM") - before))
                before, begin = memory(process), time.monotonic()
                answers = set(pool.map(partial(send, frame(message)), targets))
                phases.append(Phase(kind, begin, time.monotonic(), memory(process, "VmHWM") - before))
                if not all(answer.startswith(f"[{bomb.code}] ") for answer in answers):
                    print(f"{bomb.name}: {str(answers)[:300]}")


def send(frame: bytes, connection: ClientConnection) -> str:
    """The answer."""
    with connection.protocol_mutex:  # no pong in the middle
        connection.socket.sendall(frame)
    return str(connection.recv())


def frame(message: bytes | str) -> bytes:
    """A message as it goes over the wire, masked with zeros: the attacker's work is not what is measured."""
    opcode, data = (0x81, message.encode()) if isinstance(message, str) else (0x82, message)
    return bytes([opcode, 0xFF]) + struct.pack(">Q", len(data)) + bytes(4) + data


def fuzz(port: int, count: int) -> None:
    """Observations with a few bytes changed, cut or doubled, on one connection."""
    generator, codes = random.Random(0), Counter[str]()
    with connections(port, 1) as ((connection,), metadata):
        sent = observation(metadata, 0) | {"noise_key": [1, 2, 3], "prompt": np.asarray("Stack.")}
        sent["observation/image"] = sent["observation/image"][:8, :8]
        sent["observation/wrist_image"] = sent["observation/wrist_image"][:8, :8]
        whole = pack(sent)
        headers = [place for place in range(len(whole)) if b"data" in whole[max(0, place - 40) : place + 40]]
        for _ in range(count):
            message = bytearray(whole)
            for _ in range(generator.choice((1, 1, 2, 8))):
                place = generator.choice(headers) if generator.random() < 0.7 else generator.randrange(len(message))
                message[min(place, len(message) - 1)] = generator.randrange(256)
            if generator.random() < 0.2:
                cut = generator.randrange(len(message))
                message = message[:cut] if generator.random() < 0.5 else message + message[cut:]
            connection.send(bytes(message))
            answer = connection.recv()
            codes[answer[: answer.index("]") + 1] if isinstance(answer, str) else "actions"] += 1
    print(f"{count} fuzzed messages: {dict(codes.most_common())}")


def crowd(port: int, count: int) -> None:
    """That many clients at once; each gets the actions for its own noise."""
    with connections(port, count) as (opened, metadata):
        for index, connection in enumerate(opened):
            connection.send(pack(observation(metadata, index) | {"noise_key": [0, 0, index]}))
        keys = [unpack(connection.recv())["noise_key"] for connection in opened]  # type: ignore[arg-type]
    print(f"{count} clients: {sum(key == [0, 0, index] for index, key in enumerate(keys))} got their own actions")


def stop_under_load(port: int, process: subprocess.Popen[str], count: int) -> None:
    """SIGTERM while clients ask: what was accepted is answered, and every connection closed with 1001."""
    ends, answered = Counter[str](), Counter[int]()

    def ask(index: int) -> None:
        try:
            message = pack(observation(metadata, index))
            while True:
                opened[index].send(message)
                unpack(opened[index].recv())  # type: ignore[arg-type]
                answered[index] += 1
        except ConnectionClosed as closed:
            ends[str(closed.rcvd and closed.rcvd.code)] += 1

    with connections(port, count) as (opened, metadata), ThreadPoolExecutor(count) as pool:
        asking = [pool.submit(ask, index) for index in range(count)]
        time.sleep(3)
        stopped = time.monotonic()
        process.send_signal(signal.SIGTERM)
        for each in asking:
            each.result()
    code = process.wait(60)
    took = time.monotonic() - stopped
    print(f"SIGTERM: exit code {code} after {took:.1f} s, {answered.total()} answers, closed with {dict(ends)}")


if __name__ == "__main__":
    main()
