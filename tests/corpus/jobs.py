"""Every kind of broken input, with the valid twin it is made of and the command that must refuse it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus import checkpoints, configs, datasets, norm_stats
from corpus.case import Case

from rlinf_isaac.config import load_config
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import compute_norm_stats, settings_of

QUANTILES = ["policy.norm=quantile", "norm_stats.batch_size=1"]


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: file or directory that holds the valid twin.
        cases: the faults.
        job: from (input, dataset) to the job that uses the input, as on the command line.
    """

    name: str
    cases: Sequence[Case]
    job: Callable[[Path, Path], list[str]]

    def copy_twin(self, twins: Path, directory: Path) -> Path:
        """A copy of the valid twin, with what belongs beside it."""
        path = directory / self.name
        if path.name == "norm_stats.json":
            shutil.copy(twins / "provenance.json", directory)
        shutil.copytree(twins / self.name, path) if (twins / self.name).is_dir() else shutil.copy(
            twins / self.name, path
        )
        return path

    def command(self, case: Case | None, path: Path, dataset: Path) -> list[str]:
        """What must refuse the case: doctor, or the verb itself where only a hash of the weights shows the fault."""
        hashed = case is not None and case.name in checkpoints.NEED_HASHING and self.name == "checkpoints"
        return [*([] if hashed else ["doctor"]), *self.job(path, dataset)]


def _sft(dataset: Path, *more: str | Path) -> list[str]:
    return ["sft", "--dataset", str(dataset), "--output", "out", *map(str, more)]


KINDS = (
    Kind("dataset", datasets.CASES, lambda path, _: _sft(path)),
    Kind(
        "norm_stats.json",
        norm_stats.CASES,
        lambda path, dataset: _sft(dataset, "--norm-stats", path, "--overrides", ",".join(QUANTILES)),
    ),
    Kind("checkpoints", checkpoints.CASES, lambda path, _: ["eval", "--ckpt-root", str(path), "--output", "out"]),
    Kind("mine.yaml", configs.CASES, lambda path, dataset: _sft(dataset, "--preset", path)),
    Kind(
        "rl.yaml",
        configs.RL_CASES,
        lambda path, dataset: ["rl", "--ckpt-root", str(dataset.with_name("checkpoints")), "--preset", str(path)],
    ),
)


def make_twins(directory: Path, small_checkpoints: Path) -> None:
    """Write the valid twin of every kind."""
    datasets.make_valid(directory / "dataset")
    configs.make_valid(directory / "mine.yaml")
    configs.make_valid(directory / "rl.yaml")
    for step in ("2", "4"):
        shutil.copytree(small_checkpoints / step, directory / "checkpoints" / step)
    dataset, settings = LeRobotDataset(directory / "dataset"), settings_of(load_config("tiny", QUANTILES))
    stats = compute_norm_stats(dataset, **settings)
    stats.save(directory / "norm_stats.json")
    provenance = {"dataset": dataset.digest, **settings, "norm_stats": stats.digest}
    (directory / "provenance.json").write_text(json.dumps(provenance))
