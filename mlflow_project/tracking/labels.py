"""The name, experiment and tags that a person gives to the run of a verb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rlinf_isaac.ground.errors import InvalidJob, Problem

_LONGEST_NAME, _LONGEST_VALUE = 250, 5000


@dataclass(frozen=True)
class Labels:
    """What a person calls a run.

    Attributes:
        name: name of the run; None leaves it to the verb.
        experiment: name of the experiment; None leaves it to MLflow's environment variables.
        tags: tags besides those of the verb.
    """

    name: str | None = None
    experiment: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


_labels = Labels()


def current() -> Labels:
    """The labels of the run that begins next."""
    return _labels


@contextmanager
def labels(chosen: Labels) -> Iterator[None]:
    """The outermost run that begins within this block has these labels; runs nested in it have none."""
    global _labels
    outer, _labels = _labels, chosen
    try:
        yield
    finally:
        _labels = outer


def read_labels(name: str | None, experiment: str | None, tags: Sequence[str]) -> Labels:
    """The labels of the options ``--run-name``, ``--experiment`` and ``--tag``.

    Raises:
        InvalidJob: a tag is not KEY=VALUE, or a text is longer than MLflow takes.
    """
    problems, values = [], {}
    for word in tags:
        key, separator, value = word.partition("=")
        if not separator or not key.strip():
            problems.append(Problem("bad-tag", f"--tag {word!r} is not KEY=VALUE", "write e.g. --tag team=grasping"))
        elif len(key) > _LONGEST_NAME or len(value) > _LONGEST_VALUE:
            cause = f"--tag {key[:40]}... has {len(word)} characters"
            problems.append(Problem("bad-tag", cause, "shorten it: keys to 250 characters, values to 5000"))
        elif key.startswith("mlflow."):
            problems.append(
                Problem("bad-tag", f"--tag {key} is MLflow's own", "choose a key without the prefix mlflow.")
            )
        else:
            values[key.strip()] = value
    for option, text in (("--run-name", name), ("--experiment", experiment)):
        if text is not None and not 0 < len(text.strip()) <= _LONGEST_NAME:
            cause = f"{option} is empty" if not text.strip() else f"{option} has {len(text)} characters"
            problems.append(Problem("bad-run-name", cause, "give it 1 to 250 characters, or leave it out"))
    if problems:
        raise InvalidJob(problems)
    return Labels(name, experiment, values)
