"""How long the command line takes to refuse each broken input of the corpus, and to accept its valid twin.

    python benchmarks/preflight.py [--dataset-rows 1000000]

Every case runs in a process of its own, as a user's command does: wall seconds from start to exit, imports included.
The bar is 2 s. With --dataset-rows a large valid dataset (no images) is checked as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests"), str(PROJECT / "benchmarks")]

from corpus.case import Case  # noqa: E402
from corpus.jobs import KINDS, Kind, make_twins  # noqa: E402
from support import small_config  # noqa: E402


def train_checkpoints(directory: Path) -> Path:
    """Two real checkpoints of a tiny model, which the checkpoint cases are made of."""
    from rlinf_isaac.engines.demonstrations import record_demonstrations
    from rlinf_isaac.engines.local import LocalEngine
    from rlinf_isaac.jobs.sft import plan

    for _ in record_demonstrations(small_config(), directory / "demos"):
        pass
    job = plan(small_config(), directory / "demos", None, directory / "sft")
    for _ in LocalEngine().sft(job):
        pass
    return job.output / "checkpoints"


def timed(words: list[str], cwd: Path) -> tuple[float, int, set[str]]:
    """Wall seconds, exit code and codes of one command."""
    start = time.perf_counter()
    switch = ["--json"] if words[0] == "doctor" else []
    command = [sys.executable, "-m", "mlflow_project.cli", *words, *switch]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={"PYTHONPATH": str(PROJECT)})
    seconds = time.perf_counter() - start
    if switch:
        return seconds, result.returncode, {each["code"] for each in json.loads(result.stdout)["problems"]}
    return seconds, result.returncode, {line.split()[1] for line in result.stderr.splitlines() if line[:6] == "error "}


def run_case(kind: Kind, case: Case | None, twins: Path, directory: Path) -> float:
    """Seconds of one case; stops the benchmark when it is not refused (or the twin not accepted)."""
    path = kind.copy_twin(twins, directory)
    if case is not None:
        case.break_it(path)
    seconds, exit_code, codes = timed(kind.command(case, path, twins / "dataset"), directory)
    if (exit_code, case is None or case.code in codes) != (0 if case is None else 2, True):
        raise SystemExit(f"{kind.name}, {case}: exit code {exit_code}, {codes}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset-rows", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "twins").mkdir()
        make_twins(root / "twins", train_checkpoints(root))
        print(f"{'input':16} {'faults':>6} {'refused':>8} {'twin s':>7} {'median s':>9} {'max s':>6}  slowest")
        for kind in KINDS:
            seconds = []
            for number, case in enumerate([None, *kind.cases]):
                (directory := root / f"{kind.name}-{number}").mkdir()
                seconds.append((run_case(kind, case, root / "twins", directory), case.name if case else "twin"))
            faults = [pair[0] for pair in seconds[1:]]
            slowest, slow_name = max(seconds)
            print(
                f"{kind.name:16} {len(faults):6} {len(faults):8} {seconds[0][0]:7.2f} "
                f"{statistics.median(faults):9.2f} {slowest:6.2f}  {slow_name}"
            )
        if args.dataset_rows:
            from norm_stats import write_dataset

            write_dataset(root / "large", args.dataset_rows // 500, 500)
            seconds, _, codes = timed(["doctor", "--dataset", str(root / "large")], root)
            print(f"doctor --dataset on {args.dataset_rows} rows: {seconds:.2f} s ({', '.join(sorted(codes))})")


if __name__ == "__main__":
    main()
