"""Names in MLflow that several modules write or read (tags, metrics, artifacts), and placeholders for MLflow's ids.

Runs stay in stores for years, so a name that has once been written must never change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

# Tags that say what a run did and how it ended.
VERB_TAG = "rlinf_isaac.verb"
FAILURE_TAG = "failure.reason"
NOTE_TAG = "mlflow.note.content"
"""MLflow's own tag for the description of a run, in Markdown."""
PARENT_RUN_TAG = "mlflow.parentRunId"
"""MLflow's own tag for the id of the parent run."""
COMMIT_TAG = "mlflow.source.git.commit"
"""MLflow's own tag for the git commit; `mlflow run` sets it, too."""
DIRTY_TAG = "git.dirty"
BRANCH_TAG = "mlflow.source.git.branch"
USER_TAG, SOURCE_TAG, SOURCE_TYPE_TAG = "mlflow.user", "mlflow.source.name", "mlflow.source.type"
"""MLflow's own tags for who made a run, and with what; its columns "Created by" and "Source"."""
COMMAND_TAG = "command"
"""Tag with the command line."""
TASK_TAG = "task"
"""Tag with the name of the task that a run is about."""
ABOUT_TAG = "about."
"""Prefix of the tags that say in a word what a run or a checkpoint is."""
NOT_YET = "not yet"
"""Value of an `ABOUT_TAG` until it is known. MLflow lists tags in the order in which they were first set."""
PRESET_TAG, DEVICE_TAG, HOST_TAG = f"{ABOUT_TAG}preset", f"{ABOUT_TAG}device", f"{ABOUT_TAG}host"
OF_THE_VERB = (
    *(VERB_TAG, COMMIT_TAG, BRANCH_TAG, DIRTY_TAG, USER_TAG, SOURCE_TAG, SOURCE_TYPE_TAG, TASK_TAG),
    *(PRESET_TAG, DEVICE_TAG, HOST_TAG),
)
"""Tags of a verb's run that the runs nested in it have, too."""
LONG_TAGS = (COMMAND_TAG, "platform", "git.status", "checkpoint.uri", "sim.prompt")
VERSION_TAG = "version."
"""Prefix of the tags with package versions."""
PLANNED_TAG = "sweep.checkpoints"
"""Tag of an evaluation run: the number of checkpoints in its sweep, fixed before the sweep began."""
ENV_FINDINGS_TAG = "env.findings"
"""Tag of runs that played episodes: the codes that `doctor env` last found of the environment, or that it found
nothing, or that it was not asked."""
REMOVED_TAG = "checkpoints.removed"
"""Tag of a training: the steps whose checkpoints it did not keep on disk, and the space that was freed."""
VARIED_TAG = "vary.axes"
"""Tag of an evaluation of a checkpoint: the axes along which its episodes were played again, in runs nested in it."""
VARY_AXIS_TAG, VARY_STRENGTH_TAG = "vary.axis", "vary.strength"
"""Tags of such a nested run. It has no metric of an evaluation, and is none."""
VERDICT_TAG = "comparison.verdict"
"""Tag of a run that has compared checkpoints: which one is best, in a sentence."""
MISMATCH_TAG = "allow_mismatch"
"""Tag of runs that were allowed to continue although the job differs from what the weights were trained with."""
MISMATCH_OF_TAG = "mismatch."
"""Prefix of the tags that describe the mismatches, one tag for each problem code."""

# Tags of a checkpoint; its LoggedModel has them, and so do the runs that made or used it.
MODEL_TAG = "checkpoint.sha256"
URI_TAG = "checkpoint.uri"
BASE_URI_TAG = "base.uri"
HUB_TAG = "checkpoint.hub"
"""Tag: ``hf://org/name@commit`` of what a run of `push` uploaded, or of a checkpoint that came from the hub."""
DATASET_HUB_TAG = "dataset.hub"
"""Tag of a training: ``hf://org/name@commit`` of the datasets that came from the Hugging Face Hub."""
LINEAGE_TAG = "lineage."
"""Prefix of the tags with the sha256 of a run's or checkpoint's inputs (see `lineage_tag`)."""
ASSUMED_TAG = "assumed."
"""Prefix of the tags with the facts about a training that a person has assumed."""
NOT_KNOWN_TAG = "not_known"
ASSUMED_SINCE = "checkpoint.assumed"
"""Tag of a registered LoggedModel: JSON of the facts that were assumed for its evaluation and are not in its files."""

# Metrics of an evaluation, and of the comparison of a checkpoint before and after reinforcement learning.
EPISODES = "eval/episodes"
"""Only runs that evaluated a checkpoint have this metric."""
SUCCESS = "eval/success_once"
TASK_METRIC, TASK_RATE = "eval/task/", "/success_once"
"""Beginning and end of the name of a metric between which the name of a task stands."""
SUCCESS_LOW, SUCCESS_HIGH = "eval/success_low", "eval/success_high"
"""The 95 % interval of `SUCCESS`."""
RETURN_MEAN = "eval/return_mean"
LENGTH_MEAN = "eval/episode_length_mean"
SUCCESS_BEFORE = "before/success_once"
GAIN = "gain/success_once"
GAINED, LOST, GAIN_P_VALUE = "gain/gained", "gain/lost", "gain/p_value"

# Tags and metrics of a reinforcement learning that was guarded.
ROLLBACKS_TAG = "rl.rollbacks"
"""How often it went back to an earlier checkpoint."""
ROLLBACK_TAG = "rl.rollback."
"""Prefix of the tags that say so: the iteration -> where it went back to, and why."""
ENDED_TAG = "rl.ended"
"""How it ended: complete, target or collapsed."""
RESULT_TAG = "rl.result"
"""How it ended and which checkpoint is its result, in a sentence."""
FORECAST_TAG = "rl.forecast"
"""When it will reach its target success, as of its newest iteration."""
ABANDONED = "rl/abandoned"
"""Metric that is 1 at the iterations whose learning was given up."""
FORECAST = "forecast/iterations_to_"
"""Prefix of the metrics with a forecast; the target in percent follows, and ``_low`` or ``_high`` for the bounds."""
FORECAST_EPISODES = "forecast/episodes_to_"

# Artifacts of a run.
EPISODES_FILE = "episodes.json"
"""The episodes of an evaluation as a table, one row each."""
SETTINGS_FILE = "settings.json"
"""`EvaluationStarted.settings`."""
COMPARISON_PAGE = "comparison.html"
ROLLOUT = "rollout"
"""Key of the animated images; the step of an image is the number of its episode."""

EXPERIMENT_PLACEHOLDER = "{{experiment}}"
"""Placeholder for MLflow's id of the experiment, unknown while a record is written; the replica fills it in."""
RUN_ID = re.compile(r"[0-9a-f]{32}")
"""Pattern of a run id."""
_RUN_PLACEHOLDER = re.compile(r"\{\{run:([0-9a-f]{32})\}\}")


def run_placeholder(run: str) -> str:
    """Placeholder for MLflow's id of the run whose local uuid is `run`."""
    return f"{{{{run:{run}}}}}"


def local_run(text: str) -> str | None:
    """The local uuid in a placeholder made by `run_placeholder`; None for any other text, such as an MLflow id."""
    match = _RUN_PLACEHOLDER.fullmatch(text)
    return match[1] if match else None


def fill_in(text: str, experiment: str, id_of_run: Callable[[str], str]) -> str:
    """Replace all placeholders in `text` by MLflow's ids.

    Args:
        text: a recorded text.
        experiment: MLflow's id of the experiment.
        id_of_run: maps the local uuid of a run to MLflow's id.
    """
    return _RUN_PLACEHOLDER.sub(lambda match: id_of_run(match[1]), text.replace(EXPERIMENT_PLACEHOLDER, experiment))


def for_people_first(tags: Mapping[str, str]) -> dict[str, str]:
    """`tags` in the order in which a person wants to read them: MLflow shows them in the order in which they were set.
    Digests, versions and long texts come last."""

    def rank(key: str) -> int:
        if key in (VERB_TAG, TASK_TAG, PRESET_TAG, DEVICE_TAG, HOST_TAG):
            return 1
        if key.startswith(ABOUT_TAG):
            return 0
        return 3 if key.endswith("sha256") or key.startswith(VERSION_TAG) or key in LONG_TAGS else 2

    return {key: tags[key] for key in sorted(tags, key=rank)}


def lineage_tag(link: str) -> str:
    """Name of the tag with the sha256 of a lineage link: ``norm_stats`` -> ``lineage.norm_stats.sha256``."""
    return f"{LINEAGE_TAG}{link}.sha256"
