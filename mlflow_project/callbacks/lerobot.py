"""Records ``lerobot-train``: two lines in a script that calls its ``train()``, or in place of the command

    python -m mlflow_project.callbacks.lerobot --policy.type=act --dataset.repo_id=...
    accelerate launch -m mlflow_project.callbacks.lerobot ...

lerobot reports to one object, its ``WandBLogger``, which only the first process makes. What is made here in its place
has the same three methods, passes each call on to lerobot's own where W&B is enabled, and is made where it is not, too.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow_project.callbacks.ending import ending_of
from mlflow_project.callbacks.found import bundle_command, first_of, lerobot_eval_command, lerobot_input
from mlflow_project.callbacks.job import Job
from mlflow_project.callbacks.options import Options, hooked, read_options
from mlflow_project.callbacks.plain import numbers
from mlflow_project.callbacks.training import Training
from mlflow_project.vocabulary import BASE_URI_TAG, VERSION_TAG
from rlinf_isaac.ground.digest import file_digest
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.probe import installed_version

TRIED = "0.4.4, 0.6.1"
SCRIPT = "lerobot.scripts.lerobot_train"
HOOKS = ("train", "WandBLogger.log_dict", "WandBLogger.log_policy", "WandBLogger.log_video")
PROGRESS = ("steps", "samples", "episodes", "epochs")
"""How far the training is. lerobot logs it with every evaluation as well, where ``eval/episodes`` would be taken for
the number of those played; that is ``eval/n_episodes``."""
EVALUATION = ("per_task", "per_group", "overall")
"""Members of what lerobot logs of an evaluation that are no scalars."""

logger = logging.getLogger("mlflow_project")
_tracked: _Trainer | None = None


def track(
    *,
    name: str | None = None,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    python: str | None = None,
    hash_limit_gb: float = 32.0,
) -> None:
    """Record every training that lerobot's ``train()`` does in this process from now on. Calling it again is harmless.

    Args:
        name, experiment, tags, python, hash_limit_gb: see `options.read_options`.

    Raises:
        InvalidJob: an option is wrong, or this lerobot has no such hooks (0.4.4 and 0.6.1 were tried).
    """
    global _tracked
    options = read_options(name=name, experiment=experiment, tags=tags, python=python, hash_limit_gb=hash_limit_gb)
    if _tracked is not None:
        _tracked.options = options
        return
    script = hooked(SCRIPT, HOOKS, trainer="lerobot", tried=TRIED)
    config = hooked("lerobot.configs.train", ("TrainPipelineConfig.validate",), trainer="lerobot", tried=TRIED)
    if getattr(sys.modules.get("__main__"), "train", None) is script.train and script.train is not None:
        cause = "this script has imported lerobot's train before track() was called, and would call it past the record"
        raise InvalidJob.of("tracked-too-late", cause, "call track() first, then import train")
    _tracked = _Trainer(options, script, config.TrainPipelineConfig)


class _Trainer:
    """lerobot's ``train`` and what it calls, hooked."""

    def __init__(self, options: Options, script: Any, config_class: Any) -> None:
        self.options = options
        self._train, self._logger, self._validate = script.train, script.WandBLogger, config_class.validate
        self._inside = False
        self._enabled: dict[int, bool] = {}
        self._training: Training | None = None
        self._made_logger: Logger | None = None

        @functools.wraps(script.train)
        def train(*args: Any, **kwargs: Any) -> Any:
            return self._run(*args, **kwargs)

        def validate(config: Any) -> Any:
            result = self._validate(config)
            if self._inside and _first_process():
                # lerobot makes its logger only where this is set; `_made` sets it back, before anything is saved.
                self._enabled[id(config)], config.wandb.enable = bool(config.wandb.enable), True
            return result

        script.train, script.WandBLogger, config_class.validate = train, self._made, validate

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        self._inside, self._training, self._made_logger = True, None, None
        error: BaseException | None = None
        try:
            return self._train(*args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._inside = False
            if self._training is not None:
                if self._made_logger is not None:
                    self._made_logger.read_data()
                self._training.end(ending_of(error))

    def _made(self, config: Any) -> Any:
        """What lerobot makes its logger with."""
        enabled = self._enabled.pop(id(config), bool(config.wandb.enable))
        config.wandb.enable = enabled
        theirs = self._logger(config) if enabled and config.wandb.project else None
        try:
            self._training = _begin(config, self.options)
        except Exception as error:
            logger.warning("this training is not recorded: %s", error, exc_info=not isinstance(error, OSError))
        self._made_logger = Logger(theirs, self._training, config)
        return self._made_logger


class Logger:
    """Has the methods of lerobot's ``WandBLogger``. Each records, and then calls lerobot's own, if there is one."""

    def __init__(self, theirs: Any, training: Training | None, config: Any) -> None:
        self._theirs, self._training = theirs, training
        self._kind = str(getattr(getattr(config, "policy", None), "type", ""))
        self._config, self._data_read = config, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)  # whatever else a version may ask of its logger

    def log_dict(
        self, d: dict[str, Any], step: int | None = None, mode: str = "train", custom_step_key: str | None = None
    ) -> None:
        """The scalars of a step, or, with the mode ``eval``, of an evaluation with its episodes."""
        self.read_data()
        if self._training is not None:
            at = d.get(custom_step_key) if step is None and custom_step_key is not None else step
            played = mode == "eval" and "overall" in d
            values = numbers({key: d[key] for key in d if not (played and key in PROGRESS)}, f"{mode}/")
            if mode == "eval" and isinstance(overall := d.get("overall"), Mapping):
                results = {key: d[key] for key in EVALUATION if key in d}
                # lerobot has taken these out of what it calls overall, to log them by name.
                back = {key: d[key] for key in ("pc_success", "avg_sum_reward", "eval_s") if key in d}
                results["overall"] = dict(overall) | back
                values |= numbers(overall, f"{mode}/")
                paths = [Path(path) for path in overall.get("video_paths", ())]
                videos = {path.name: path for path in paths}
                if len(videos) < len(paths):  # of several tasks
                    videos = {
                        f"{Path(each).parent.name}_{Path(each).name}": Path(each) for each in overall["video_paths"]
                    }
                self._training.evaluation(int(at or 0), values, results, videos)
            else:
                self._training.metrics(values, int(at or 0))
        if self._theirs is not None:
            self._theirs.log_dict(
                d, step, mode=mode, **({"custom_step_key": custom_step_key} if custom_step_key else {})
            )

    def log_policy(self, checkpoint_dir: Path) -> None:
        """A checkpoint that was saved."""
        self.read_data()
        if self._training is not None:
            policy = Path(checkpoint_dir) / "pretrained_model"
            ours = self._kind in ("pi0", "pi05")

            def command(path: Path, with_stats: bool) -> str:
                at = path / policy.name if policy.is_dir() else path
                return bundle_command(at, with_stats=with_stats) if ours else lerobot_eval_command(at)

            with suppress(ValueError):
                self._training.checkpoint(Path(checkpoint_dir), int(Path(checkpoint_dir).name), command)
        if self._theirs is not None:
            self._theirs.log_policy(checkpoint_dir)

    def log_video(self, video_path: str, step: int, mode: str = "train") -> None:
        """The first video of an evaluation; `log_dict` has all of them."""
        if self._theirs is not None:
            self._theirs.log_video(video_path, step, mode=mode)

    def read_data(self) -> None:
        """Record where the data and its statistics come from, once; lerobot downloads them after it made its logger."""
        if self._training is not None and not self._data_read:
            self._data_read = True
            try:
                _record_data(self._training, self._config.dataset)
            except Exception as error:  # must not stop the training
                self._training.complain("the dataset", error)


def _first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _begin(config: Any, options: Options) -> Training:
    data = config.dataset
    version = installed_version("lerobot")
    tags = {f"{VERSION_TAG}lerobot": version or "not known", "dataset.repo_id": str(data.repo_id)}
    tags |= {"policy.type": str(getattr(config.policy, "type", "not known"))}
    if pretrained := getattr(config.policy, "pretrained_path", None):
        tags[BASE_URI_TAG] = str(pretrained)
    job = Job(
        trainer="lerobot",
        output=Path(config.output_dir),
        name=f"lerobot {config.job_name or Path(config.output_dir).name}",
        config=config.to_dict(),
        source=_checkout(),
        resumed=bool(config.resume),
        total=int(config.steps),
        tags=tags,
    )
    return Training(job, options)


def _record_data(training: Training, data: Any) -> None:
    root, name = _dataset_root(data), str(data.repo_id)
    training.dataset(name, lambda limit_gb: lerobot_input(root, name, limit_gb, data.revision))
    # lerobot normalises with the statistics of the data, also where it starts from a policy that has some.
    stats = first_of([root / "meta/stats.json", root / "meta/episodes_stats.jsonl"])
    training.norm_stats(stats, None if stats is None else file_digest(stats), f"dataset {name}")
    info = root / "meta/info.json"
    if info.is_file():
        version = json.loads(info.read_text(encoding="utf-8")).get("codebase_version")
        training.recorder.tags({"dataset.version": str(version)})


def _dataset_root(data: Any) -> Path:
    """Where lerobot keeps a dataset: the directory that was named, else its repo id below lerobot's home."""
    if data.root is not None:
        return Path(data.root)
    from lerobot.utils.constants import HF_LEROBOT_HOME

    return Path(HF_LEROBOT_HOME) / str(data.repo_id)


def _checkout() -> Path | None:
    """The directory of lerobot's sources; a package that was installed from an index is in no checkout."""
    file = sys.modules[SCRIPT].__file__
    return None if file is None or "site-packages" in file else Path(file).parent


def run(main: Callable[[], Any] | None = None) -> None:
    """What ``lerobot-train`` does, recorded."""
    if sys.argv[1:2] == ["--"]:
        del sys.argv[1]
    track()
    (main or sys.modules[SCRIPT].main)()


if __name__ == "__main__":
    from mlflow_project.callbacks._launch import launched
    from mlflow_project.callbacks.lerobot import run as importable

    launched(importable)
