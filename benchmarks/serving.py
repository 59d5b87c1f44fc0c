"""Latency of the policy server: one client and 32, with and without batching, over OpenPI's protocol on loopback.

    python benchmarks/serving.py CHECKPOINT [--seconds 5]

Every client asks again as soon as it has its answer, with two 224 x 224 images, for `--seconds` after a warm-up. The
server is a process of its own with torch on one thread; all clients share another one. Printed are percentiles of what
a client waits, and of what of it was the model's.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time

import numpy as np
from websockets.asyncio.client import connect

from mlflow_project.serving.codec import pack, unpack

SETTINGS = {
    "one row a call, inexact": ["--max-batch", "1", "--exact", "false"],
    "one request a call": ["--max-batch", "1"],
    "8 a call, exact (default)": [],
    "32 a call, exact": ["--max-batch", "32"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    print(f"{'server':28} clients  requests/s    p50 ms    p99 ms  of it model p50  rows/call")
    for name, options in SETTINGS.items():
        command = [sys.executable, "-m", "mlflow_project.cli", "serve", arguments.checkpoint, "--port", "0", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = next(int(line.rpartition(":")[2]) for line in server.stdout if "ws://" in line)
            for clients in (1, 32):
                rows = asyncio.run(measure(port, clients, arguments.seconds))
                waits, model, batch = np.array(rows).T
                p50, p99 = np.percentile(waits, [50, 99])
                print(
                    f"{name:28} {clients:7} {len(rows) / arguments.seconds:11.1f} {p50:9.1f} {p99:9.1f}"
                    f" {np.median(model):16.1f} {batch.mean():10.1f}",
                    flush=True,
                )
            server.terminate()


async def measure(port: int, clients: int, seconds: float) -> list[tuple[float, float, float]]:
    """(milliseconds waited, milliseconds of the model, requests that shared the call) of every answer."""
    groups = await asyncio.gather(*(ask(port, index, seconds) for index in range(clients)))
    return [row for group in groups for row in group]


async def ask(port: int, index: int, seconds: float) -> list[tuple[float, float, float]]:
    random, rows = np.random.default_rng(index), []
    async with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as connection:
        metadata = unpack(await connection.recv())
        message = pack(
            {
                "observation/image": random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
                "observation/wrist_image": random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
                "observation/state": random.normal(0, 0.1, len(metadata["state_names"])).astype(np.float32),
            }
        )
        begin = time.perf_counter() + 0.2 * seconds
        while (sent := time.perf_counter()) < begin + seconds:
            await connection.send(message)
            reply = unpack(await connection.recv())
            if sent >= begin:
                timing = reply["policy_timing"]
                rows.append((1e3 * (time.perf_counter() - sent), timing["infer_ms"], timing["batch"]))
    return rows


if __name__ == "__main__":
    main()
