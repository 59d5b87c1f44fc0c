"""Records RLinf's own scripts: two lines at the top of one, or in place of running it

    python -m mlflow_project.callbacks.rlinf examples/sft/train_vla_sft.py --config-name ...

RLinf's runners report to one object, the ``MetricLogger`` of the driver. Its public methods are wrapped; the backends
of ``runner.logger.logger_backends`` work as before. Ray's workers are not touched.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_project.callbacks.ending import Ending, EndOfProcess
from mlflow_project.callbacks.found import bundle_command, find_norm_stats_of, lerobot_input
from mlflow_project.callbacks.job import Job
from mlflow_project.callbacks.options import Options, hooked, read_options
from mlflow_project.callbacks.plain import numbers
from mlflow_project.callbacks.training import Training
from mlflow_project.lineage.provenance import DatasetInput
from mlflow_project.vocabulary import BASE_URI_TAG, VERSION_TAG
from rlinf_isaac.ground.probe import installed_version

TRIED = "0.3.0"
MODULE = "rlinf.utils.metric_logger"
HOOKS = ("MetricLogger.log", "MetricLogger.finish")
EVALUATIONS = ("embodied_eval", "reasoning_eval")
"""``runner.task_type`` of what trains nothing; its steps are not shifted (see `_Logger`)."""
_CHECKPOINT = re.compile(r"global_step_(\d+)")

logger = logging.getLogger("mlflow_project")
_options: Options | None = None


def track(
    *,
    name: str | None = None,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    python: str | None = None,
    hash_limit_gb: float = 32.0,
) -> None:
    """Record every training and evaluation that RLinf's runners do in this process from now on.

    Args:
        name, experiment, tags, python, hash_limit_gb: see `options.read_options`.

    Raises:
        InvalidJob: an option is wrong, or this RLinf has no such hooks (0.3.0 was tried).
    """
    global _options
    options = read_options(name=name, experiment=experiment, tags=tags, python=python, hash_limit_gb=hash_limit_gb)
    module = hooked(MODULE, HOOKS, trainer="rlinf", tried=TRIED)
    if _options is None:
        _hook(module.MetricLogger)
    _options = options


def _hook(theirs: Any) -> None:
    make, log, finish, delete = theirs.__init__, theirs.log, theirs.finish, getattr(theirs, "__del__", None)

    @functools.wraps(make)
    def __init__(self: Any, cfg: Any, *args: Any, **kwargs: Any) -> None:
        make(self, cfg, *args, **kwargs)
        self._rlinf_isaac = _begun(self)

    @functools.wraps(log)
    def logged(self: Any, data: Any, step: int, *args: Any, **kwargs: Any) -> Any:
        if (ours := getattr(self, "_rlinf_isaac", None)) is not None:
            of_worker = kwargs.get("worker_group_name") is not None or len(args) > 1
            ours.log(data, step, of_worker=of_worker)
        return log(self, data, step, *args, **kwargs)

    @functools.wraps(finish)
    def finished(self: Any) -> Any:
        result = finish(self)
        if (ours := getattr(self, "_rlinf_isaac", None)) is not None:
            ours.end(Ending("FINISHED"))
        return result

    theirs.__init__, theirs.log, theirs.finish = __init__, logged, finished
    if delete is not None:  # it calls finish(), also after an exception

        @functools.wraps(delete)
        def deleted(self: Any) -> None:
            self._rlinf_isaac = None
            delete(self)

        theirs.__del__ = deleted


def _begun(theirs: Any) -> _Logger | None:
    assert _options is not None
    try:
        return _Logger(theirs, _options)
    except Exception as error:
        logger.warning("this run of RLinf is not recorded: %s", error, exc_info=not isinstance(error, OSError))
        return None


class _Logger:
    """What is recorded of one ``MetricLogger``.

    RLinf counts steps from 0 in its logs and from 1 in its checkpoints. Here both are counted from 1, as `ingest` does.
    """

    def __init__(self, theirs: Any, options: Options) -> None:
        config: Mapping[str, Any] = theirs.config
        runner: Mapping[str, Any] = config.get("runner") or {}
        evaluates = runner.get("task_type") in EVALUATIONS or bool(runner.get("only_eval"))
        self._shift = 0 if evaluates else 1
        output = Path(theirs.log_path).absolute()
        self._checkpoints = output / str(theirs.experiment_name) / "checkpoints"
        self._there = set(self._checkpoints.glob("global_step_*"))
        tags = {f"{VERSION_TAG}rlinf": installed_version("rlinf") or "not known"}
        tags |= {"rlinf.task_type": str(runner.get("task_type", "not known"))}
        base = _get(config, "actor.model.model_path") or _get(config, "rollout.model.model_path")
        if base:
            tags[BASE_URI_TAG] = str(base)
        job = Job(
            trainer="rlinf",
            output=output,
            name=f"rlinf {theirs.experiment_name}",
            config=config,
            source=_checkout(),
            resumed=bool(runner.get("resume_dir")),
            total=runner.get("max_steps") if (runner.get("max_steps") or -1) > 0 else None,
            tags=tags,
            evaluates_only=evaluates,
        )
        self.training = Training(job, options)
        EndOfProcess(self.end)
        if not evaluates:
            self._data(config, base)

    def log(self, data: Any, step: int, *, of_worker: bool) -> None:
        """Record scalars, and the checkpoints that are new. RLinf saves one before it logs the metrics of its step."""
        try:
            if not of_worker:
                self.training.metrics(numbers(data), int(step) + self._shift)
            self._look()
        except Exception as error:  # must not stop the training
            self.training.complain("metrics", error)

    def end(self, ending: Ending) -> None:
        """The run ends. A checkpoint that is new may be what a failure has interrupted."""
        try:
            self._look(complete=ending.status == "FINISHED")
        except Exception as error:
            self.training.complain("checkpoints", error)
        self.training.end(ending)

    def _look(self, *, complete: bool = True) -> None:
        if not self._checkpoints.is_dir():
            return
        for path in sorted(set(self._checkpoints.glob("global_step_*")) - self._there, key=_step_of):
            self._there.add(path)
            self.training.checkpoint(path, _step_of(path), _bundle, complete=complete)

    def _data(self, config: Mapping[str, Any], base: Any) -> None:
        paths = _get(config, "data.train_data_paths")
        for path in [paths] if isinstance(paths, str) else list(paths or ()):
            root = Path(str(path))
            self.training.dataset(str(path), functools.partial(_dataset, root))
        stats = find_norm_stats_of(Path(str(base))) if base else None
        where = None if stats is None else stats[0]
        self.training.norm_stats(where, None if stats is None else stats[1], f"base {base}")


def _dataset(root: Path, limit_gb: float) -> DatasetInput | None:
    return lerobot_input(root, root.name, limit_gb)


def _bundle(checkpoint: Path, with_stats: bool) -> str:
    return bundle_command(checkpoint, with_stats=with_stats)


def _step_of(path: Path) -> int:
    match = _CHECKPOINT.fullmatch(path.name)
    return int(match[1]) if match else -1


def _get(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _checkout() -> Path | None:
    """The directory of the script at work, which is in RLinf's repository: the scripts are in no package."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).absolute().parent if file else None


if __name__ == "__main__":
    from mlflow_project.callbacks import rlinf
    from mlflow_project.callbacks._launch import launched, run_script

    def _work() -> None:
        rlinf.track()
        run_script("rlinf")

    launched(_work)
