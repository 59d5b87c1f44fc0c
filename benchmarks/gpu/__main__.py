"""Full-size pi0 and pi0.5 on one GPU beside rlinf-openpi's PyTorch model and RLinf's actor: parity, inference,
fine-tuning, reinforcement learning, bundles.

    pip install --no-deps rlinf-openpi==0.1.1 rlinf-transformer-openpi==4.53.2 rlinf==0.3.0 \\
        tokenizers==0.21.4 huggingface_hub==0.36.0
    python benchmarks/gpu

Weights and inputs are random: 2 views of 224 px, 48 prompt tokens, chunk 50, 10 denoising steps, bfloat16 as OpenPI
mixes it. Times are medians of CUDA events, fastest and slowest behind them. Their packages go into an
environment of their own, with this project's; without them the stages that need them fail, and the others run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "ROW "
SLOW = "theirs-max-autotune"
"""The stage that compiles for minutes; only run when it is named."""


def main() -> None:
    """Run every stage in a process of its own and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default="all", help=f"comma separated; all but {SLOW}: all")
    parser.add_argument("--tiny", action="store_true", help="small models on the CPU (the stages rl-*): does it run?")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    if arguments.tiny:
        os.environ["GPU_BENCHMARK_TINY"] = "1"  # for the processes of the stages
    import comparison
    from stages import STAGES

    if arguments.stage:
        for row in STAGES[arguments.stage][0]():
            print(MARK + json.dumps(row), flush=True)
        return
    chosen = arguments.stages.split(",")
    if chosen == ["all"]:
        chosen = [name for name in STAGES if name != SLOW]
    patience = 10 if arguments.tiny else 1
    rows = [row for name in chosen for row in _run(name, patience * STAGES[name][1])]
    rows += comparison.ratios(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": _machine(), "rows": rows}, indent=1))
    print(f"\n{_machine()}\n")
    width = max(len(row[0]) for row in rows)
    for what, value, unit, note in rows:
        shown = f"{value:.1e}" if unit == "error" else f"{value:.2f}"
        print(f"{what:{width}s} {shown:>9s} {unit:9s} {note}")


def _run(stage: str, limit: int) -> Iterator[tuple[str, float, str, str]]:
    start = time.perf_counter()
    command = [sys.executable, str(Path(__file__).parent), "--stage", stage]
    with tempfile.TemporaryDirectory() as cache:  # compiled kernels: every stage starts without any
        caches = {"TRITON_CACHE_DIR": f"{cache}/triton", "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor"}
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=os.environ | caches)
            output, failure = result.stdout, result.stderr.strip().splitlines()[-1:] if result.returncode else []
        except subprocess.TimeoutExpired as error:
            output = (error.stdout or b"").decode()
            failure = [f"stopped after {limit} s"]
    for line in output.splitlines():
        if line.startswith(MARK):
            yield tuple(json.loads(line.removeprefix(MARK)))
    if failure:
        yield stage, float("nan"), "failed", failure[0][:100]
    print(f"{stage}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def _machine() -> str:
    import torch
    import triton

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{device}, torch {torch.__version__}, triton {triton.__version__}"


if __name__ == "__main__":
    main()
