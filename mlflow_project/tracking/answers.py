"""Classifies the errors of an MLflow client: the record is refused for good, or has to be sent again later.

A refusal is final, so only MLflow itself can refuse a record: by its JSON error or, without a server, by an exception
of the store or of the client's own checks. The page of a proxy, an unknown endpoint or a garbled answer mean "later",
whatever their HTTP status.

An error in this project's own code is neither. It is logged with its traceback, and the operation is skipped like a
refused one, so that it delays nothing; `sync --again` can apply it later.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import format_tb, walk_tb

from mlflow_project.tracking.redact import clean_urls

_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
"""Error codes that only MLflow itself gives. For the page of a proxy the client derives other codes from the HTTP
status: BAD_REQUEST from 400, ENDPOINT_NOT_FOUND from 404 (`mlflow.exceptions.HTTP_STATUS_TO_ERROR_CODE`)."""
_VIOLATIONS = ("UNIQUE constraint failed", "UniqueViolation", "Duplicate entry", "duplicate key")
"""Messages of sqlite, PostgreSQL and others when another client has just written the same row."""
_TOO_LARGE = 413
_OURS, _THEIRS = ("mlflow_project", "rlinf_isaac"), "mlflow"
_logged: set[str] = set()

logger = logging.getLogger("mlflow_project")


class Unreachable(Exception):
    """The tracking server did not accept an operation now; it may accept it later."""


class Contended(Unreachable):
    """Another client did the same at the same time; a new search finds its result."""


class RequestTooLarge(Unreachable):
    """A proxy rejects requests of this size."""


class Refused(Exception):
    """An operation can be applied neither now nor later. The message says why."""


class OwnFault(Refused):
    """Code of this project failed on an operation. The message says so."""


def told(reason: str) -> str:
    """The reason why an operation was skipped, prefixed with "MLflow refused" unless it is an `OwnFault`."""
    return reason if _OWN_FAULT in reason else f"MLflow refused: {reason}"


_OWN_FAULT = "a bug of rlinf-isaac, please report it"


@contextmanager
def sorted_errors(*, remote: bool) -> Iterator[None]:
    """Convert every exception in the block into `Unreachable`, `Refused` or one of their subclasses.

    Args:
        remote: whether the store is accessed over HTTP.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (Refused, Unreachable):
        raise
    except MlflowException as error:
        raise _of_mlflow(error, remote=remote) from error
    except json.JSONDecodeError as error:
        raise Unreachable(f"the answer is not JSON: {first_line(error)}") from error
    except OSError as error:  # before ValueError, because some exceptions of requests are both
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise (RequestTooLarge if status == _TOO_LARGE else Unreachable)(_named(error)) from error
    except Exception as error:
        if _is_ours(error):
            _log(error)
            raise OwnFault(f"{_OWN_FAULT} ({_named(error)})") from error
        if isinstance(error, TypeError | ValueError | KeyError | AttributeError):
            raise Refused(_named(error)) from error
        raise Unreachable(_named(error)) from error


def first_line(error: Exception) -> str:
    """The first line of an error's text, without credentials in URLs."""
    return clean_urls(str(error).strip().partition("\n")[0][:500])


def _of_mlflow(error: Exception, *, remote: bool) -> Exception:
    from mlflow.exceptions import RestException

    code = getattr(error, "error_code", "")
    if any(violation in str(error) for violation in _VIOLATIONS):
        return Contended(first_line(error))
    # Without a server, BAD_REQUEST comes from the database itself.
    own_word = isinstance(error, RestException) or not remote
    if code in _REFUSALS or (code == "BAD_REQUEST" and own_word):
        return Refused(first_line(error))
    cause = error.__context__  # the exception of requests; MLflow's own text is a whole paragraph
    return Unreachable(type(cause).__name__ if isinstance(cause, OSError) else first_line(error))


def _is_ours(error: Exception) -> bool:
    """Whether this project's code, or a library called by it, raised the error, rather than MLflow's code."""
    packages = [frame.f_globals.get("__name__", "").split(".")[0] for frame, _ in walk_tb(error.__traceback__)]
    # Skip the first frame: it is the with block of `sorted_errors`.
    inner = next((package for package in reversed(packages[1:]) if package in (*_OURS, _THEIRS)), None)
    return inner in _OURS


def _log(error: Exception) -> None:
    """Log an error with its traceback, but only once: the same operation is tried in a batch, alone, and again."""
    text = "".join(format_tb(error.__traceback__)[-1:]) + _named(error)
    if text not in _logged:
        _logged.add(text)
        logger.error("%s; the operation it failed on stays in the journal", _OWN_FAULT, exc_info=error)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
