"""What a person may say in ``track(...)``, and how the trainer's own names are found. Both are checked at once."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from mlflow_project.tracking.labels import Labels, read_labels
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.probe import installed_version

PYTHON_VARIABLE = "RLINF_ISAAC_PYTHON"
"""Environment variable with the interpreter that has MLflow, where the trainer's own has none."""
HASH_LIMIT_GB = 32.0


@dataclass(frozen=True)
class Options:
    """What a person has chosen.

    Attributes:
        labels: name, experiment and tags of the run; the name None leaves it to the trainer.
        python: the interpreter that uploads the journal; None: nobody does, until `rlinf-isaac sync`.
        hash_limit_gb: weights and datasets of more gigabytes are not read for a digest, which is then "not known".
    """

    labels: Labels
    python: str | None
    hash_limit_gb: float = HASH_LIMIT_GB


def read_options(
    *,
    name: str | None = None,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    python: str | None = None,
    hash_limit_gb: float = HASH_LIMIT_GB,
) -> Options:
    """Check the keywords of ``track``.

    Args:
        name: name of the run.
        experiment: name of the experiment; by default that of MLflow's variables, else ``rlinf-isaac``.
        tags: further tags.
        python: interpreter that has this project and MLflow; by default the one that `PYTHON_VARIABLE` names, else this
            one if it has MLflow.
        hash_limit_gb: see `Options`.

    Raises:
        InvalidJob: with all that is wrong.
    """
    problems: list[Problem] = []
    try:
        labels = read_labels(name, experiment, [f"{key}={value}" for key, value in (tags or {}).items()])
    except InvalidJob as error:
        labels, problems = Labels(), list(error.problems)
    chosen = python or os.environ.get(PYTHON_VARIABLE)
    if chosen is not None and shutil.which(chosen) is None:
        cause = f"{chosen}, which is to upload the journal, is no program"
        cure = f"name an interpreter that has rlinf-isaac and MLflow in track(python=...) or {PYTHON_VARIABLE}"
        problems.append(Problem("no-callback-python", cause, cure))
    if not hash_limit_gb >= 0:
        cause = f"track(hash_limit_gb={hash_limit_gb}) is no size"
        problems.append(Problem("bad-hash-limit", cause, "give gigabytes; 0 reads no weights and no data"))
    if problems:
        raise InvalidJob(problems)
    if chosen is None and importlib.util.find_spec("mlflow") is not None:
        chosen = sys.executable
    return Options(labels, chosen, hash_limit_gb)


def hooked(module: str, names: Sequence[str], *, trainer: str, tried: str) -> ModuleType:
    """Import the trainer's module and see that it has the names that are to be hooked.

    Args:
        module: dotted name.
        names: attributes, dotted where they are those of a class.
        trainer: name of its distribution.
        tried: the versions that the hook was tried with.

    Raises:
        InvalidJob: the trainer is not installed here, or it is a version without one of the names.
    """
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        cause = f"{module} cannot be imported here: {error}"
        raise InvalidJob.of("no-trainer", cause, f"run this in the interpreter that has {trainer}") from error
    missing = [name for name in names if not _has(found, name)]
    if missing:
        version = installed_version(trainer) or "not known"
        cause = f"{module} of {trainer} (version {version}) has no {', '.join(missing)}, where its training is recorded"
        cure = f"use a version that was tried ({tried}), or record the finished training: rlinf-isaac ingest"
        raise InvalidJob.of("trainer-not-known", cause, cure)
    return found


def _has(owner: object, name: str) -> bool:
    for part in name.split("."):
        if not hasattr(owner, part):
            return False
        owner = getattr(owner, part)
    return True
