"""``--notify``: URLs to post to and commands to run, checked before a job starts. Imports nothing heavy.

The path of a webhook is its password (Slack, Discord, Teams), so a URL is shown by its host alone, everywhere.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlflow_project.tracking.redact import HIDDEN
from rlinf_isaac.ground.errors import InvalidJob, Problem

VARIABLE = "RLINF_ISAAC_NOTIFY"
"""Environment variable that holds what ``--notify auto`` stands for."""
_BETWEEN = re.compile(r"\n|\s;\s")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Address:
    """Where a notification goes.

    Attributes:
        url: an http or https URL that takes a POST; None for a command.
        command: the words of a command, whose first is found in PATH; empty for a URL.
    """

    url: str | None = None
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        """How it is shown: a URL without its path, a command by its name. Neither can hold a secret."""
        if self.url is None:
            return self.command[0]
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}/{HIDDEN}"


def chosen(texts: Sequence[str]) -> list[str]:
    """The single addresses in the values of ``--notify``, each once.

    A value has one address, or several with `` ; `` or line feeds between them. ``auto`` is what `VARIABLE` holds, and
    ``none`` is none.
    """
    words: list[str] = []
    for text in texts:
        for part in _BETWEEN.split(text):
            single = part.strip()
            if single == "auto":
                words += [word.strip() for word in _BETWEEN.split(os.environ.get(VARIABLE, ""))]
            else:
                words.append(single)
    return list(dict.fromkeys(word for word in words if word not in ("", "none", "auto")))


def parse(text: str) -> Address:
    """One address.

    Raises:
        InvalidJob: it is neither a URL that can be posted to nor a command that is there. The message has no secret.
    """
    if _SCHEME.match(text):
        return Address(url=_checked_url(text))
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidJob.of("bad-notify", f"--notify: a command cannot be read: {error}", "close its quotes") from None
    if not words or shutil.which(words[0]) is None:
        name = words[0] if words else ""
        cause = f"--notify: there is no command {name!r} in PATH, and it is no http or https URL"
        raise InvalidJob.of("notify-not-found", cause, "give the full path of the command, or a URL with its scheme")
    return Address(command=words)


def problems(texts: Sequence[str]) -> list[Problem]:
    """What is wrong with the values of ``--notify``; a warning if MLflow has already recorded a webhook's URL."""
    found: list[Problem] = []
    for text in chosen(texts):
        try:
            address = parse(text)
        except InvalidJob as error:
            found += error.problems
            continue
        given_to_mlflow = os.environ.get("MLFLOW_RUN_ID") and any(text in each for each in texts)
        if given_to_mlflow and address.url is not None and urlsplit(address.url).path.strip("/"):
            cause = f"`mlflow run` records its parameters, among them the whole URL of {address}, which may be a secret"
            cure = f"leave -P notify out, and set the environment variable {VARIABLE}"
            found.append(Problem("notify-recorded", cause, cure, "warning"))
    return found


def _checked_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port  # .port raises for what is no number
    except ValueError:
        host = None
    else:
        if parts.scheme.lower() not in ("http", "https"):
            cause = f"--notify: a URL with the scheme {parts.scheme} cannot be posted to"
            raise InvalidJob.of("bad-notify", cause, "use http or https, or name a command that knows this scheme")
    if not host or any(character.isspace() or not character.isprintable() for character in text):
        raise InvalidJob.of(
            "bad-notify", "--notify: a URL has no valid host, port or path", "write it as a browser does"
        )
    return text
