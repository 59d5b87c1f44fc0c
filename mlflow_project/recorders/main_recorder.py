"""Records what the whole path came to in the run of `main`, so that one can be compared with that of last month."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from mlflow_project.comparison.compare import Comparison
from mlflow_project.comparison.episodes import success_words
from mlflow_project.lineage.provenance import DatasetInput, lerobot_datasets
from mlflow_project.recorders.logged_checkpoints import log_model, model_name
from mlflow_project.tracking import ui
from mlflow_project.tracking.recorder import Recorder, flatten
from mlflow_project.vocabulary import ABOUT_TAG, NOT_YET, VERB_TAG
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.resume import metrics_log
from rlinf_isaac.jobs import options

SECTIONS = ("preset", "env", "demos", "sft", "eval", "rl")
"""What a person chooses; the constants of the model are params of the nested runs."""
LOSS = "train/loss"
AWAITED = {f"{ABOUT_TAG}{key}": NOT_YET for key in ("best", "success", "promotion")}
"""Tags of the run from its beginning, so that they come first."""
COLUMNS: tuple[str, ...] = (
    *("main/best_success_once", "main/gain_over_first", "main/loss"),
    *("main/best_success_low", "main/best_success_high", "main/episodes"),
)
CHARTS = COLUMNS[:3]


class MainRecorder:
    """Records into the run of `main`: the resolved config, datasets, checkpoints, durations and the best success."""

    def __init__(self, recorder: Recorder, config: JobConfig, *, improve: bool) -> None:
        """Log the config: what was chosen as params, without what is still ``auto``, and all of it as an artifact; and
        save the UI's view of all runs of `main`."""
        self._recorder, self._config = recorder, config
        values = asdict(config)
        sections = [name for name in SECTIONS if improve or name != "rl"]
        chosen = flatten({name: values[name] for name in sections})
        recorder.params({key: text for key, text in chosen.items() if text != options.AUTO})
        if ui.version_is_known():
            view = ui.comparison_view(f"tags.{VERB_TAG} = 'main'", COLUMNS, CHARTS, order="attributes.start_time")
            recorder.experiment_tag(f"mlflow.sharedViewState.{ui.MAIN_VIEW}", json.dumps(view, separators=(",", ":")))
        recorder.text("config.json", json.dumps(values, indent=2, default=str) + "\n")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Log how long the block takes, in seconds, as ``main/<name>_s``; of one that fails, too."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._recorder.metrics({f"main/{name}_s": time.monotonic() - began})

    def trained(self, job: SftJob, bundles: Sequence[Bundle]) -> None:
        """Log the fine-tuning's datasets, checkpoints and last loss (the mean over its last interval of logging)."""
        for dataset in lerobot_datasets(job.datasets, job.dataset_digest):
            self.dataset(dataset)
        self._models(bundles)
        told = metrics_log(job.output).entries()
        if losses := [entry.values[LOSS] for entry in told if LOSS in entry.values]:
            self._recorder.metrics({"main/loss": losses[-1]})

    def dataset(self, dataset: DatasetInput) -> None:
        """Log a dataset that the path has used."""
        self._recorder.dataset(dataset)

    def improved(self, bundles: Sequence[Bundle]) -> None:
        """Log the checkpoints that reinforcement learning has made."""
        self._models(bundles)

    def compared(self, comparison: Comparison, first: str) -> None:
        """Log the best checkpoint's success, and how far it is above that of the first one.

        Args:
            comparison: of all checkpoints.
            first: sha256 of the earliest checkpoint of the fine-tuning.
        """
        best = comparison.standings[0]
        success = best.success
        metrics = {
            "main/best_success_once": success.rate,
            "main/best_success_low": success.low,
            "main/best_success_high": success.high,
            "main/episodes": float(success.n),
            "main/checkpoints": float(len(comparison.standings)),
        }
        for standing in comparison.standings:
            if standing.evaluation.checkpoint == first:
                metrics["main/gain_over_first"] = success.rate - standing.success.rate
        self._recorder.metrics(metrics)
        words = {"best": best.label, "success": success_words(success)}
        self._recorder.tags({f"{ABOUT_TAG}{key}": text for key, text in words.items()})

    def _models(self, bundles: Sequence[Bundle]) -> None:
        name = model_name(self._config.preset, pi05=self._config.model.pi05)
        for bundle in bundles:
            log_model(self._recorder, bundle, name, "output")
