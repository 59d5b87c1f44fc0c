"""Records OpenPI's ``scripts/train.py`` (JAX) and ``scripts/train_pytorch.py``: two lines at the top of one, or

    python -m mlflow_project.callbacks.openpi scripts/train.py pi0_libero --exp-name=first

The scripts are in no package; what they call is: the run begins where they make their data loader of their config, its
metrics are what they give to ``wandb.log``, its checkpoints what appears in their checkpoint directory. W&B itself
works as before. ``train_pytorch.py`` gives nothing to ``wandb.log`` where its config has ``wandb_enabled`` False; with
``WANDB_MODE=disabled`` instead W&B wants no account either.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow_project.callbacks.ending import EndOfProcess
from mlflow_project.callbacks.found import bundle_command, first_of, lerobot_input
from mlflow_project.callbacks.job import Job
from mlflow_project.callbacks.options import Options, hooked, read_options
from mlflow_project.callbacks.plain import numbers
from mlflow_project.callbacks.training import Training
from mlflow_project.vocabulary import BASE_URI_TAG, VERSION_TAG
from rlinf_isaac.ground.digest import file_digest
from rlinf_isaac.ground.probe import installed_version

TRIED = "rlinf-openpi 0.1.1"
PREFIX = "train/"

logger = logging.getLogger("mlflow_project")
_trainer: _Trainer | None = None


def track(
    *,
    name: str | None = None,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    python: str | None = None,
    hash_limit_gb: float = 32.0,
) -> None:
    """Record the training that one of OpenPI's scripts does in this process.

    Args:
        name, experiment, tags, python, hash_limit_gb: see `options.read_options`.

    Raises:
        InvalidJob: an option is wrong, or this OpenPI has no such hooks (rlinf-openpi 0.1.1 was tried).
    """
    global _trainer
    options = read_options(name=name, experiment=experiment, tags=tags, python=python, hash_limit_gb=hash_limit_gb)
    if _trainer is not None:
        _trainer.options = options
        return
    loaders = hooked("openpi.training.data_loader", ("create_data_loader",), trainer="openpi", tried=TRIED)
    hooked("openpi.training.config", ("TrainConfig.checkpoint_dir",), trainer="openpi", tried=TRIED)
    wandb = hooked("wandb", ("init", "log"), trainer="wandb", tried="0.31.0")
    _trainer = _Trainer(options, loaders, wandb)


class _Trainer:
    """What OpenPI's scripts call, hooked."""

    def __init__(self, options: Options, loaders: Any, wandb: Any) -> None:
        self.options, self._wandb = options, wandb
        self._training: Training | None = None
        self._directory: Path | None = None
        self._there: set[Path] = set()
        self._tried = False
        create, init = loaders.create_data_loader, wandb.init

        @functools.wraps(create)
        def create_data_loader(config: Any, *args: Any, **kwargs: Any) -> Any:
            loader = create(config, *args, **kwargs)
            if not self._tried:
                self._tried = True
                self._begin(config, loader, kwargs.get("framework", "jax"))
            return loader

        @functools.wraps(init)
        def initialised(*args: Any, **kwargs: Any) -> Any:
            run = init(*args, **kwargs)
            wandb.log = self._heard(wandb.log)  # which init has replaced
            return run

        loaders.create_data_loader, wandb.init = create_data_loader, initialised
        wandb.log = self._heard(wandb.log)

    def _heard(self, log: Callable[..., Any]) -> Callable[..., Any]:
        if getattr(log, "heard_by_rlinf_isaac", False):
            return log

        @functools.wraps(log)
        def logged(data: Mapping[str, Any], step: int | None = None, *args: Any, **kwargs: Any) -> Any:
            self._log(data, step)
            return log(data, step, *args, **kwargs)

        logged.heard_by_rlinf_isaac = True  # type: ignore[attr-defined]
        return logged

    def _log(self, data: Mapping[str, Any], step: int | None) -> None:
        if self._training is None:
            return
        try:
            if step is not None:
                self._training.metrics(numbers({key: data[key] for key in data if key != "step"}, PREFIX), int(step))
            self._look()
        except Exception as error:  # must not stop the training
            self._training.complain("metrics", error)

    def _look(self) -> None:
        """Record the checkpoints that are new. Both scripts write one beside its place and rename it when whole."""
        if self._training is None or self._directory is None or not self._directory.is_dir():
            return
        found = {Path(entry.path) for entry in os.scandir(self._directory) if entry.name.isdigit() and entry.is_dir()}
        for path in sorted(found - self._there, key=lambda each: int(each.name)):
            self._there.add(path)
            self._training.checkpoint(path, int(path.name), lambda at, stats: bundle_command(at, with_stats=stats))

    def _begin(self, config: Any, loader: Any, framework: str) -> None:
        if not _first_process(framework):
            return
        try:
            self._training = training = _begun(config, framework, self.options)
        except Exception as error:
            logger.warning("this training is not recorded: %s", error, exc_info=not isinstance(error, OSError))
            return

        def end(ending: Any) -> None:
            self._look()
            training.end(ending)

        EndOfProcess(end)
        self._directory = Path(config.checkpoint_dir)
        resumed = training.job.resumed
        self._there = set(self._directory.glob("[0-9]*")) if resumed else set()
        if framework == "pytorch" and not config.wandb_enabled:
            training.say(
                "train_pytorch.py reports no metrics with wandb_enabled=False: leave it True, with WANDB_MODE=disabled"
            )
        try:
            _record_data(training, config, loader.data_config())
        except Exception as error:
            training.complain("the dataset", error)


def _begun(config: Any, framework: str, options: Options) -> Training:
    package = next((name for name in ("openpi", "rlinf-openpi") if installed_version(name)), "openpi")
    tags = {f"{VERSION_TAG}openpi": installed_version(package) or "not known", "openpi.framework": framework}
    tags["openpi.config"] = str(config.name)
    loads = getattr(config.weight_loader, "params_path", None) if framework == "jax" else config.pytorch_weight_path
    if loads:
        tags[BASE_URI_TAG] = str(loads)
    job = Job(
        trainer="openpi",
        output=Path(config.checkpoint_dir),
        name=f"openpi {config.name} {config.exp_name}",
        config=_config(config),
        source=_checkout(),
        resumed=bool(config.resume),
        total=int(config.num_train_steps),
        tags=tags,
    )
    return Training(job, options)


def _config(config: Any) -> dict[str, Any]:
    """The config without its filter of frozen parameters, a tree of functions that has no text of its own."""
    import dataclasses

    names = [field.name for field in dataclasses.fields(config) if field.name != "freeze_filter"]
    return {name: getattr(config, name) for name in names}


def _record_data(training: Training, config: Any, data: Any) -> None:
    """What the loader's ``DataConfig`` says of the data and of their norm stats."""
    name = str(data.repo_id)
    training.recorder.tags({"dataset.repo_id": name})
    root = _dataset_root(name)
    if root is None:
        training.not_known("dataset digest")
    else:
        training.dataset(name, lambda limit_gb: lerobot_input(root, name, limit_gb))
    assets = getattr(config.data, "assets", None)
    base = getattr(assets, "assets_dir", None) or str(config.assets_dirs)
    file = first_of([Path(base) / str(data.asset_id) / "norm_stats.json"]) if data.asset_id else None
    training.norm_stats(file, None if file is None else file_digest(file), f"assets {base}/{data.asset_id}")


def _dataset_root(repo_id: str) -> Path | None:
    """Where lerobot, which OpenPI reads with, keeps a dataset; None where it is no dataset of lerobot."""
    if repo_id in ("fake", "None"):
        return None
    if Path(repo_id).is_absolute():
        return Path(repo_id)
    for module in ("lerobot.common.constants", "lerobot.constants", "lerobot.utils.constants"):
        try:
            home = __import__(module, fromlist=["HF_LEROBOT_HOME"]).HF_LEROBOT_HOME
        except (ImportError, AttributeError):
            continue
        return Path(home) / repo_id
    return None


def _first_process(framework: str) -> bool:
    if framework == "jax":
        import jax

        return bool(jax.process_index() == 0)  # its backend is in use by now
    return os.environ.get("RANK", "0") == "0"


def _checkout() -> Path | None:
    """The directory of the script at work, which is in OpenPI's repository."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(file).absolute().parent if file else None


if __name__ == "__main__":
    from mlflow_project.callbacks import openpi
    from mlflow_project.callbacks._launch import launched, run_script

    def _work() -> None:
        openpi.track()
        run_script("openpi")

    launched(_work)
