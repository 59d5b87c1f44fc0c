"""Finds the journal that a person means: by a directory, a run's id, link or name, or the newest one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlflow_project.tracking.known_stores import known_outputs
from mlflow_project.vocabulary import RUN_ID
from mlflow_project.watching.journals import journals_in, open_journal, sent
from rlinf_isaac.ground.errors import InvalidJob

_SHORT_ID = re.compile(r"[0-9a-f]{6,32}")


def find_journal(subject: str | None, output: Path) -> Path:
    """The journal of a run.

    Args:
        subject: a journal; a directory of results, or one below it; an MLflow run id or its first six digits; a link
            that has one; or a run's name. None: the newest journal.
        output: where to look first; then in all directories of results that were used lately.

    Raises:
        InvalidJob: there is none.
    """
    if subject is None:
        found = next(_all(output), None)
        if found is None:
            cause = f"no verb has written a journal to {output / 'journal'}, nor elsewhere on this machine lately"
            raise InvalidJob.of("no-journal", cause, "start one, or name the directory that was its --output")
        return found
    if Path(subject).exists():
        return _of_path(Path(subject))
    match = RUN_ID.search(subject)
    wanted = match[0] if match else subject
    for path in _all(output):
        if _is(path, wanted):
            return path
    known = [f"{view.root.name!r}" for path in list(_all(output))[:5] if (view := open_journal(path)) and view.root]
    cure = f"name one of these: {', '.join(known)}; or the directory that was its --output"
    raise InvalidJob.of("unknown-run", f"no journal on this machine has a run {subject}", cure)


def outputs(output: Path) -> list[Path]:
    """Directories of results: this one, then those that were used lately, each once."""
    places = [output, *(Path(known.output) for known in known_outputs())]
    return list({place.absolute(): place for place in places}.values())


def _all(output: Path) -> Iterator[Path]:
    """The journals of `output`, the newest first; then those of other places, the newest first."""
    first, *others = outputs(output)
    yield from journals_in(first)
    rest = [path for place in others for path in journals_in(place)]
    yield from sorted(rest, key=lambda path: path.name, reverse=True)


def _of_path(path: Path) -> Path:
    if path.is_file():
        if open_journal(path) is None:
            raise InvalidJob.of("no-journal", f"{path} is not a journal", "name a file in the directory `journal`")
        return path
    for place in (path.absolute(), *path.absolute().parents):
        if journals := journals_in(place):
            if place == path.absolute():
                return journals[0]
            # A directory of one training below the results: the newest verb that has written there.
            return next((each for each in journals if _writes_to(each, path.absolute())), journals[0])
    raise InvalidJob.of("no-journal", f"no journal is in {path}, nor above it", "name the --output of a verb")


def _writes_to(journal: Path, directory: Path) -> bool:
    with open(journal, "rb") as file:
        return any(bytes(directory) + b"/" in line for line in file)


def _is(journal: Path, wanted: str) -> bool:
    """Whether a journal has the run of this id (or its beginning), or its own run has this name."""
    ids = [*sent(journal).runs.items()]
    if _SHORT_ID.fullmatch(wanted):
        return any(run.startswith(wanted) or found[0].startswith(wanted) for run, found in ids)
    view = open_journal(journal)
    return view is not None and view.root is not None and view.root.name == wanted
