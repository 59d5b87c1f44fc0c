"""Tells a store that does not answer from one that does not have what was asked for."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mlflow_project.tracking.redact import clean_urls
from rlinf_isaac.ground.errors import Problem

if TYPE_CHECKING:
    from mlflow import MlflowClient

_NOT_NOW = (401, 403, 408, 429, 500, 502, 503, 504)
_LONGEST = 300
_REFUSED = re.compile(r"request to (?P<address>https?://[^/\s]+).*\[Errno -?\d+\] (?P<reason>[^\"')]+)")
_NAME = re.compile(r"[\w.-]+")


def unreachable(error: BaseException) -> Problem | None:
    """The problem of a store that does not answer, if that is what an exception or one of its causes is about."""
    reason = _connection_trouble(error)
    if reason is None:
        return None
    cure = "see that MLFLOW_TRACKING_URI is right, its server runs and its credentials are set, and try again"
    return Problem("store-unreachable", f"the MLflow store does not answer: {reason}", cure)


def not_in_store(subject: str, error: BaseException) -> Problem:
    """The problem that MLflow's `error` means for a run or a model that was named: the store does not have it, or does
    not answer."""
    if problem := unreachable(error):
        return problem
    cause = f"the MLflow store has no {subject} ({clean_urls(str(error)).partition(chr(10))[0]})"
    return Problem("not-in-store", cause, "check MLFLOW_TRACKING_URI and the id")


def known_versions(client: MlflowClient, name: str) -> str:
    """What the registry has instead of a version that was not found: its versions and aliases, or similar names."""
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(name)
        versions = sorted(int(each.version) for each in client.search_model_versions(f"name='{name}'"))
    except MlflowException:
        names = [each.name for each in client.search_registered_models()]
        near = difflib.get_close_matches(name, names, n=1)
        if near:
            return f"did you mean models:/{near[0]}?"
        return f"the registry has {', '.join(names[:8])}" if names else "the registry is empty: `promote` registers"
    aliases = [f"@{alias} (version {version})" for alias, version in sorted(model.aliases.items())]
    known = ", ".join(map(str, versions)) or "none"
    return f"models:/{name} has the versions {known}; aliases: {', '.join(aliases) or 'none'}"


def registered_as(client: MlflowClient, name: str) -> str | None:
    """``models:/name@alias`` of the registered model that a bare name means; None if there is none."""
    from mlflow.exceptions import MlflowException

    if not _NAME.fullmatch(name):
        return None
    try:
        model = client.get_registered_model(name)
    except MlflowException:
        return None
    aliases = sorted(model.aliases, key=lambda alias: (alias != "champion", alias))
    return f"models:/{name}@{aliases[0]}" if aliases else f"models:/{name}/1"


def one_line(error: BaseException) -> str:
    """The message of an exception in a line of at most 300 characters, without credentials."""
    text = " ".join(clean_urls(str(error)).split())
    if match := _REFUSED.search(text):
        return f"{match['address']}: {match['reason'].strip()}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _connection_trouble(error: BaseException) -> str | None:
    """What keeps MLflow from its store, in a line; None where it is something else."""
    modules: Mapping[str, Any] = sys.modules  # whoever has no mlflow imported has no trouble with it
    mlflow, requests = modules.get("mlflow.exceptions"), modules.get("requests.exceptions")
    sql = modules.get("sqlalchemy.exc")
    for each in _chain(error):
        if requests is not None and isinstance(each, requests.RequestException):
            return one_line(each)
        if sql is not None and isinstance(each, sql.OperationalError | sql.InterfaceError):
            return one_line(each)
        if mlflow is not None and isinstance(each, mlflow.RestException) and each.get_http_status_code() in _NOT_NOW:
            return one_line(each)
        if mlflow is not None and isinstance(each, mlflow.MlflowException) and _is_of_the_address(each):
            return one_line(each)
    return None


def _is_of_the_address(error: BaseException) -> bool:
    """Whether it is about the store's address: nobody is there, or MLflow has no store of that kind."""
    known = ("API request to", "filesystem tracking backend")
    return any(text in str(error) for text in known) or type(error).__name__.endswith("StoreURIException")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
