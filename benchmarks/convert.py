"""What a conversion to safetensors costs, beside ``cp`` and beside the ways it is usually done.

    python benchmarks/convert.py [--gib 4] [--repeats 3] [--directory DIRECTORY]

Writes a state dict in bf16 with a fifth of its bytes in fp32, by ``torch.save``, then measures in a fresh process each,
turn by turn so that a busy moment falls on all alike:

* cp: ``cp`` of the file, and the same with ``sync`` of the copy.
* ours, from a file that torch maps, neither hashes nor checks; with the checksums of the zip compared before; with the
  output's sha256 instead; with both.
* ours, as the verb: both, the sha256 of the source as well, flushed to disk, read again by safetensors and compared.
* torch.load of everything into memory and safetensors' ``save_file``; the same from a memory-mapped file.
* huggingface_hub's ``save_torch_state_dict`` from a memory-mapped file.

CPU seconds are user and system time of the process, its threads and children; "net" leaves out starting Python and
importing, which is measured alone. Anonymous memory (RssAnon) is looked up every few milliseconds: pages of the source
that are mapped count into the resident size but cost nothing, as the kernel drops them when it likes. Medians of the
repeats. Every output has to be, byte for byte, that of ``save_file``.

The bars, of the whole verb: net CPU at most 5 times that of ``cp``, two passes of sha256 among it; RssAnon at most
500 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LARGEST_SHARE, FP32_SHARE = 1 / 8, 1 / 5  # of all bytes: the largest tensor (bf16), all fp32 tensors
BLOCK_BYTES = 32 << 20  # of every tensor but the largest and the small ones
SAMPLE_SECONDS = 0.004
CPU_BAR, MEMORY_BAR_MB = 5.0, 500

Work = Callable[[Path, Path], object]


def write_state_dict(path: Path, gib: float) -> None:
    """A state dict of about `gib` GiB: an embedding, blocks of weights each with its small bias."""
    import torch

    torch.manual_seed(0)
    bank = torch.randn(1 << 22)

    def values(numel: int, dtype: torch.dtype, start: int) -> torch.Tensor:
        return bank.roll(start).to(dtype).repeat(-(-numel // len(bank)))[:numel].clone()

    total = int(gib * 2**30)
    embedding = values(int(total * LARGEST_SHARE) // 4096 * 2048, torch.bfloat16, 1)
    tensors = {"embed_tokens.weight": embedding.view(-1, 2048)}
    left = {torch.float32: total * FP32_SHARE, torch.bfloat16: total * (1 - FP32_SHARE - LARGEST_SHARE)}
    for dtype, remaining in left.items():
        for block in range(max(1, round(remaining / BLOCK_BYTES))):
            name = f"{str(dtype).removeprefix('torch.')}.layers.{block}"
            numel = int(min(BLOCK_BYTES, remaining)) // dtype.itemsize
            tensors[f"{name}.weight"] = values(numel // 1024 * 1024, dtype, block + 2).view(-1, 1024)
            tensors[f"{name}.bias"] = values(1024, dtype, block + 3)
    torch.save(tensors, path)


def _ours(*, hashes: bool, checks: bool) -> Work:
    import rlinf_isaac.checkpoint.convert.source  # noqa: F401  (imported by `write_files`: torch, mostly)
    from rlinf_isaac.checkpoint.convert.plan import plan_conversion
    from rlinf_isaac.checkpoint.convert.read import read_stored
    from rlinf_isaac.checkpoint.convert.write import write_files
    from rlinf_isaac.checkpoint.find_weights import Weights

    def work(source: Path, output: Path) -> None:
        stored = read_stored(Weights("torch", (source,)))
        write_files(plan_conversion(stored.tensors).files, output.parent, stored, checks=checks, hashes=hashes)

    return work


def whole_conversion() -> Work:
    import rlinf_isaac.checkpoint.convert.verify  # noqa: F401  (imported by `run`: torch, mostly)
    from rlinf_isaac.checkpoint.convert import prepare, run

    return lambda source, output: run(prepare(source, output.parent, overwrite=True))


def load_and_save() -> Work:
    import torch
    from safetensors.torch import save_file

    return lambda source, output: save_file(torch.load(source), output, metadata={"format": "pt"})


def map_and_save() -> Work:
    import torch
    from safetensors.torch import save_file

    def work(source: Path, output: Path) -> None:
        save_file(torch.load(source, mmap=True, weights_only=True), output, metadata={"format": "pt"})

    return work


def hub() -> Work:
    import torch
    from huggingface_hub import save_torch_state_dict

    def work(source: Path, output: Path) -> None:
        state_dict = torch.load(source, mmap=True, weights_only=True)
        save_torch_state_dict(state_dict, output.parent, max_shard_size=2**62)

    return work


@dataclass(frozen=True)
class Contestant:
    """A way to convert: a command, or what imports all that it needs and then returns what does it."""

    way: list[str] | Callable[[], Work]
    barred: bool = False


CONTESTANTS = {
    "cp": Contestant(["cp"]),
    "cp, flushed to disk": Contestant(["sh", "-c", 'cp "$0" "$1" && sync "$1"']),
    "ours, copying alone": Contestant(lambda: _ours(hashes=False, checks=False)),
    "ours, CRC-32 compared": Contestant(lambda: _ours(hashes=False, checks=True)),
    "ours, sha256 of the output": Contestant(lambda: _ours(hashes=True, checks=False)),
    "ours, CRC-32 and sha256": Contestant(lambda: _ours(hashes=True, checks=True)),
    "ours, as the verb": Contestant(whole_conversion, barred=True),
    "torch.load, save_file": Contestant(load_and_save),
    "torch.load(mmap), save_file": Contestant(map_and_save),
    "torch.load(mmap), hub": Contestant(hub),
}
REFERENCE = "torch.load, save_file"


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds of wall clock, of CPU, and the peak of its anonymous memory in MB (10^6 bytes)."""

    wall: float
    user: float
    system: float
    anonymous_mb: float

    @property
    def cpu(self) -> float:
        return self.user + self.system


def measure(command: list[str]) -> Cost:
    """Run a command to its end, which must be a good one."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, _anonymous_bytes(process.pid))
        time.sleep(SAMPLE_SECONDS)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return Cost(wall, usage.ru_utime, usage.ru_stime, peak / 1e6)


def _anonymous_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon")), 0)


def compete(name: str, source: Path, directory: Path, digests: dict[str, str]) -> tuple[Cost, Cost]:
    """(start and imports alone, the whole) of one contestant; in the first round its output is hashed as well."""
    output = directory / "out" / "model.safetensors"
    output.parent.mkdir()
    os.sync()  # so that what the last one wrote is not written back at this one's expense
    _read(source)
    try:
        way = CONTESTANTS[name].way
        if isinstance(way, list):
            return Cost(0, 0, 0, 0), measure([*way, str(source), str(output)])
        command = [sys.executable, __file__, "--measure", name, "--source", str(source), "--output", str(output)]
        costs = measure([*command, "--imports-only"]), measure(command)
        if name not in digests:
            with open(output, "rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return costs
    finally:
        shutil.rmtree(output.parent)


def _read(path: Path) -> None:
    """Read a file to its end, so that its pages are cached."""
    buffer = bytearray(1 << 22)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def median(costs: list[Cost]) -> Cost:
    fields = ("wall", "user", "system", "anonymous_mb")
    return Cost(*(statistics.median(getattr(cost, field) for cost in costs) for field in fields))


def report(costs: dict[str, list[tuple[Cost, Cost]]]) -> None:
    print(f"{'':30}{'net CPU s':>10}{'x cp':>7}{'imports':>9}{'all x cp':>10}{'wall s':>8}{'RssAnon':>11}")
    verdicts: list[tuple[str, float, float]] = []
    copied = median([whole for _, whole in costs["cp"]]).cpu
    for name, rounds in costs.items():
        imports, whole = median([imports for imports, _ in rounds]), median([whole for _, whole in rounds])
        net = statistics.median(whole.cpu - imports.cpu for imports, whole in rounds)
        line = f"{name:30}{net:>10.2f}{net / copied:>7.2f}{imports.cpu:>9.2f}{whole.cpu / copied:>10.2f}"
        print(f"{line}{whole.wall:>8.1f}{whole.anonymous_mb:>8.0f} MB")
        if CONTESTANTS[name].barred:
            peak = max(whole.anonymous_mb for _, whole in rounds)
            verdicts += [
                (f"{name}: net CPU / cp", net / copied, CPU_BAR),
                (f"{name}: RssAnon in MB", peak, MEMORY_BAR_MB),
            ]
    for what, value, bar in verdicts:
        print(f"{'holds' if value <= bar else 'FAILS'}: {what} {value:.2f}, the bar is {bar:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4.0, help="size of the state dict")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="where to write; the system's temporary directory by default")
    parser.add_argument("--only", action="append", choices=list(CONTESTANTS), help="beside cp; repeatable")
    parser.add_argument("--measure", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--imports-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write_state_dict(args.write, args.gib)
    elif args.measure:
        way = CONTESTANTS[args.measure].way
        assert callable(way)
        work = way()
        if not args.imports_only:
            work(args.source, args.output)
    else:
        run(args)


def run(args: argparse.Namespace) -> None:
    names = [name for name in CONTESTANTS if args.only is None or name in ("cp", REFERENCE, *args.only)]
    with tempfile.TemporaryDirectory(dir=args.directory) as temporary:
        directory = Path(temporary)
        source = directory / "full_weights.pt"
        subprocess.run([sys.executable, __file__, "--gib", str(args.gib), "--write", str(source)], check=True)
        print(f"{source.stat().st_size / 2**30:.2f} GiB, {args.repeats} repeats", flush=True)
        costs: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in names}
        digests: dict[str, str] = {}
        for _ in range(args.repeats):
            for name in names:
                costs[name].append(compete(name, source, directory, digests))
    report(costs)
    different = [name for name, digest in digests.items() if digest != digests[REFERENCE]]
    print(f"not the bytes of save_file: {', '.join(different)}" if different else "all outputs are save_file's bytes")
    if different:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
