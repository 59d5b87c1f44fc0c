"""Names in MLflow that several modules write or read: tags, metrics, artifacts; and ids that are filled in later.

Runs are in stores for years, so that a name that was once written stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# Tags of a run: what it did, and how it ended.
VERB_TAG = "rlinf_isaac.verb"
FAILURE_TAG = "failure.reason"
NOTE_TAG = "mlflow.note.content"
"""MLflow's own: the description of a run, in Markdown."""
PARENT_RUN_TAG = "mlflow.parentRunId"
"""MLflow's own: the run that it is nested in."""
COMMIT_TAG = "mlflow.source.git.commit"
"""MLflow's own, as a user's `mlflow run` sets it."""
DIRTY_TAG = "git.dirty"
VERSION_TAG = "version."
"""Begins the tags with the version of a package."""
PLANNED_TAG = "sweep.checkpoints"
"""Of an evaluation: of how many checkpoints its sweep is, as was fixed before it began."""
MISMATCH_TAG = "allow_mismatch"
"""On runs that went on although the job is not what the weights were trained with."""
MISMATCH_OF_TAG = "mismatch."
"""Begins the tags that say what did not match, one for each code."""

# Tags of a checkpoint, on its LoggedModel and on runs that made or used it.
MODEL_TAG = "checkpoint.sha256"
URI_TAG = "checkpoint.uri"
BASE_URI_TAG = "base.uri"
LINEAGE_TAG = "lineage."
"""Begins the tags with digests of what something came from, see `lineage_tag`."""
ASSUMED_TAG = "assumed."
"""Begins the tags that say what a person assumed of a training."""
NOT_KNOWN_TAG = "not_known"
ASSUMED_SINCE = "checkpoint.assumed"
"""Of a registered LoggedModel: JSON of what was assumed when it was evaluated, beyond what its files say."""

# Metrics of an evaluation, and of what reinforcement learning made of its start.
EPISODES = "eval/episodes"
"""Of the runs that evaluated a checkpoint, and of no others."""
SUCCESS = "eval/success_once"
SUCCESS_LOW, SUCCESS_HIGH = "eval/success_low", "eval/success_high"
"""The 95 % interval of `SUCCESS`."""
RETURN_MEAN = "eval/return_mean"
LENGTH_MEAN = "eval/episode_length_mean"
SUCCESS_BEFORE = "before/success_once"
GAIN = "gain/success_once"
GAINED, LOST, GAIN_P_VALUE = "gain/gained", "gain/lost", "gain/p_value"

# Artifacts of a run.
EPISODES_FILE = "episodes.json"
"""The rows of an evaluation as a table."""
SETTINGS_FILE = "settings.json"
"""`EvaluationStarted.settings`."""
COMPARISON_PAGE = "comparison.html"
ROLLOUT = "rollout"
"""Key of the animated images; their step is the number of the episode."""

EXPERIMENT_PLACEHOLDER = "{{experiment}}"
"""Stands for MLflow's id of the experiment in what is recorded before a server is asked; the replica fills it in."""
RUN_ID = re.compile(r"[0-9a-f]{32}")
"""What the id of a run looks like."""
_RUN_PLACEHOLDER = re.compile(r"\{\{run:([0-9a-f]{32})\}\}")


def run_placeholder(run: str) -> str:
    """What stands for MLflow's id of the run with the local uuid `run`."""
    return f"{{{{run:{run}}}}}"


def local_run(text: str) -> str | None:
    """The local uuid in what `run_placeholder` made; None for anything else, such as an id of MLflow's."""
    match = _RUN_PLACEHOLDER.fullmatch(text)
    return match[1] if match else None


def fill_in(text: str, experiment: str, id_of_run: Callable[[str], str]) -> str:
    """`text` with MLflow's ids in place of all placeholders.

    Args:
        text: as it was recorded.
        experiment: MLflow's id.
        id_of_run: local uuid -> MLflow's id.
    """
    return _RUN_PLACEHOLDER.sub(lambda match: id_of_run(match[1]), text.replace(EXPERIMENT_PLACEHOLDER, experiment))


def lineage_tag(link: str) -> str:
    """The tag with the sha256 of a link: ``norm_stats`` -> ``lineage.norm_stats.sha256``."""
    return f"{LINEAGE_TAG}{link}.sha256"
