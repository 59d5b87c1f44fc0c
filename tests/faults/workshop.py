"""Where verbs are killed: one directory, in which each verb finds its inputs, made by the verbs that come before it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.end_state import copied_store
from faults.verbs import End, Job
from mlflow import MlflowClient
from support import SHORT_EVALUATION, SMALL, SMALL_PRESET, SMALL_RL

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle

_RECORDED = ("mlflow.db", "mlruns", "out/journal")
_ENVIRONMENT = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


@dataclass(frozen=True)
class Case:
    """A verb with its arguments.

    Attributes:
        inputs: what has to be there: paths below the workshop's directory.
        needs_store: whether it reads what earlier verbs recorded.
        output: directory whose journals are its own.
    """

    verb: str
    arguments: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    needs_store: bool = False
    output: str = "out"


def _case(verb: str, *arguments: object, **fields: Any) -> Case:
    return Case(verb, (verb, *map(str, arguments)), **fields)


_OUT = ("--output", "out")
_DATASET = ("--dataset", "DATASET")
_SMALL = ("--preset", SMALL_PRESET)
_ROOT = ("--ckpt-root", "CHECKPOINTS", "--ckpt-steps")
_EVAL = ("2,4", "--episodes", "3", "--videos", "1", "--overrides", SHORT_EVALUATION)
_RL = ",".join([*(each for each in SMALL_RL if "rl.workers" not in each), "rl.workers=2"])
_MAIN = ",".join([*SMALL, "eval.episodes=2"])
_CONVERT = ("--input", "full_weights.pt", "--output", "converted", "--dtype", "bf16")
CASES = {
    case.verb: case
    for case in (
        _case("demos", *_SMALL, *_OUT),
        _case("norm_stats", *_DATASET, *_SMALL, *_OUT, inputs=("out/demos",)),
        _case("sft", *_DATASET, *_SMALL, *_OUT, inputs=("out/demos",)),
        _case("eval", *_ROOT, *_EVAL, *_OUT, inputs=("out/demos", "out/sft")),
        _case("rl", *_ROOT, "6", *_OUT, "--overrides", _RL, inputs=("out/demos", "out/sft")),
        _case("main", "--rl-iterations", "0", *_OUT, "--overrides", _MAIN),
        _case("convert", *_CONVERT, inputs=("full_weights.pt",), output="result/isaaclab_openpi"),
        _case("bundle", "make", "exp/global_step_4", *_SMALL, *_OUT, inputs=("exp",)),
        _case("compare", "SWEEP", *_OUT, needs_store=True),
        _case("promote", "SWEEP", "--min-success", "0", *_OUT, needs_store=True),
        _case("sync", *_OUT, inputs=("out",)),
    )
}
"""By verb. Words in capitals stand for what the verbs before have made."""


class Workshop:
    """The directory, and the processes that run verbs in it. Paths in it stay the same, so stores and files do, too.

    Args:
        root: directory for everything; short, since sockets lie below it. Inputs that are there already are used.
        start: of `faults.verbs.verbs`.
        verbs: that make the inputs; with less than all of them there are fewer.
    """

    def __init__(
        self,
        root: Path,
        start: Callable[[Sequence[Job]], list[End]],
        verbs: Sequence[str] = ("demos", "sft", "eval"),
    ) -> None:
        self.work, self.temporary, self._all = root / "work", root / "tmp", root / "all"
        self._log, self._start, self._cache = root / "log", start, root / "cache"
        self._made: dict[str, str] = {}
        for each in (self.work, self.temporary):
            shutil.rmtree(each, ignore_errors=True)
            each.mkdir(parents=True)
        if not self._all.exists():
            self._make_inputs(verbs)
        self._find_made(self._all)

    @property
    def log(self) -> str:
        """The end of what the verbs printed."""
        return self._log.read_text()[-4000:]

    def prepare(self, case: Case, *, store: bool) -> None:
        """The inputs of a verb, nothing else; with an empty store if `store`."""
        shutil.rmtree(self.work)
        shutil.rmtree(self.temporary)
        shutil.rmtree(self._cache, ignore_errors=True)
        self.temporary.mkdir()
        if case.needs_store:
            shutil.copytree(self._all, self.work, symlinks=True)
            return
        self.work.mkdir()
        if store:
            shutil.copy(self._all / "empty.db", self.work / "mlflow.db")
        for name in case.inputs:
            source, target = self._all / name, self.work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
        for state in self.work.glob("out/journal/*.state.json"):
            state.unlink()

    def run(self, arguments: Sequence[str], **how: Any) -> End:
        """Run a verb to its end, or until it is killed (`faults.verbs.Job`)."""
        (end,) = self._start([self.job(arguments, **how)])
        return end

    def job(self, arguments: Sequence[str], **how: Any) -> Job:
        """A verb as it is run here."""
        own = {"TMPDIR": str(self.temporary), "RLINF_ISAAC_CACHE": str(self._cache), "MUJOCO_GL": "egl"}
        environment = {name: None for name in _ENVIRONMENT} | own
        words = [self._made.get(word, word) for word in arguments]
        return Job(words, str(self.work), environment, str(self._log), **how)

    def _make_inputs(self, verbs: Sequence[str]) -> None:
        """Let the verbs make each other's inputs, and keep all of it."""
        self._make_store()
        for verb in verbs:
            end = self.run(CASES[verb].arguments)
            assert end.status == 0, f"{verb} ended with {end.status}:\n{self.log}"
            self._find_made(self.work)
        if "CHECKPOINTS" in self._made:
            self._make_foreign(read_bundle(Path(self._made["CHECKPOINTS"]) / "4"))
        shutil.copytree(self.work, self._all, symlinks=True)

    def _find_made(self, place: Path) -> None:
        for word, pattern in {"DATASET": "out/demos/*", "CHECKPOINTS": "out/sft/*/checkpoints"}.items():
            for path in place.glob(pattern):
                self._made[word] = str(self.work / path.relative_to(place))
        with copied_store(place) as uri:
            client = MlflowClient(uri)
            experiment = client.get_experiment_by_name("rlinf-isaac")
            for run in client.search_runs([experiment.experiment_id], "tags.`rlinf_isaac.verb` = 'eval'"):
                if "mlflow.parentRunId" not in run.data.tags:
                    self._made["SWEEP"] = run.info.run_id

    def _make_store(self) -> None:
        from mlflow_project.tracking.first_store import ensure_store

        ensure_store(f"sqlite:///{self.work / 'mlflow.db'}")
        shutil.copy(self.work / "mlflow.db", self.work / "empty.db")

    def _make_foreign(self, bundle: Bundle) -> None:
        """A checkpoint in RLinf's form, and its weights alone."""
        import torch
        from safetensors.torch import load_file

        step = self.work / "exp" / "global_step_4"
        weights = step / "actor" / "model_state_dict" / "full_weights.pt"
        weights.parent.mkdir(parents=True)
        torch.save(load_file(bundle.path / "model.safetensors"), weights)
        shutil.copy(weights, self.work / "full_weights.pt")
        (step / bundle.asset_id).mkdir(parents=True)
        (step / bundle.asset_id / "norm_stats.json").write_bytes(bundle.norm_stats_bytes)
