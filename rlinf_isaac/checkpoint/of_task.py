"""What a checkpoint of a suite says of one of its tasks, as if it had been trained for that task alone."""

from __future__ import annotations

from dataclasses import replace

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.description import OF_TASKS
from rlinf_isaac.config import build_config
from rlinf_isaac.config.suite import for_task, names_of
from rlinf_isaac.ground.errors import InvalidJob


def of_task(bundle: Bundle, name: str | None = None) -> Bundle:
    """The bundle with the job, the facts and the norm stats of one task. Weights and digest are the same; a bundle of a
    single task is returned as it is.

    Args:
        bundle: a checkpoint.
        name: of the task; None takes the only one.

    Raises:
        InvalidJob: the checkpoint was not trained for this task, or the name is missing and there are several.
    """
    if not bundle.job.get("suite"):
        if name not in (None, bundle.job["env"]["task"]):
            cause = f"{bundle.path} was trained for {bundle.job['env']['task']}, not for {name}"
            raise InvalidJob.of("suite-one-task", cause, "leave --task out")
        return bundle
    whole = build_config(bundle.job, f"{bundle.path}/config.json")
    if name is None or name not in whole.suite["tasks"]:
        wrong = "several tasks" if name is None else f"other tasks than {name}"
        cause = f"{bundle.path} was trained for {wrong}: {', '.join(whole.suite['order'])}"
        raise InvalidJob.of("suite-one-task", cause, f"name one of them, as in --task {names_of(whole)[0]}")
    own = for_task(whole, name)
    asset_id, facts = own.policy.asset_id, bundle.config.get(OF_TASKS, {}).get(name, {})
    config = {key: value for key, value in bundle.config.items() if key not in ("images", OF_TASKS)}
    config |= {"job": replace(own, suite={}).as_dict(), **facts}
    stats = bundle.further_norm_stats.get(asset_id, bundle.norm_stats_bytes)
    return replace(bundle, config=config, norm_stats_bytes=stats, of_task=asset_id, further_norm_stats={})


def playable(bundle: Bundle, name: str | None = None) -> Bundle:
    """The bundle as a policy needs it that does not know which task its observations are of: that of the task `name`;
    without a name as it is, if its tasks share their norm stats, so that the prompt alone tells them apart.

    Raises:
        InvalidJob: as `of_task`.
    """
    suite = bundle.job.get("suite")
    return bundle if name is None and (not suite or suite["statistics"] == "shared") else of_task(bundle, name)


def first_if_needed(bundle: Bundle) -> str | None:
    """The name of the task that stands for a bundle where nobody can be asked: None if all can be played."""
    suite = bundle.job.get("suite")
    return None if not suite or suite["statistics"] == "shared" else str(suite["order"][0])
