"""What an MLflow client's error means for the record that was sent: refused, or to be sent again.

A refusal is final, so it takes MLflow's own word, about this very record: its JSON error, or an exception of the store
or of the client's own checks where there is no server between. A page of a proxy, an endpoint that is not known, a
garbled answer mean "later", whatever their status.

An error in this project's own code is neither MLflow's word nor a matter of waiting. It is logged with its traceback,
and its operation left aside like a refused one: it holds up nothing, and `sync --again` can bring it later.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import format_tb, walk_tb

from mlflow_project.tracking.redact import clean_urls

_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
"""Codes that MLflow alone gives. It reads the status of a page as another one: 400 as BAD_REQUEST, 404 as
ENDPOINT_NOT_FOUND (`mlflow.exceptions.HTTP_STATUS_TO_ERROR_CODE`)."""
_VIOLATIONS = ("UNIQUE constraint failed", "UniqueViolation", "Duplicate entry", "duplicate key")
"""How sqlite, PostgreSQL and others say that another client wrote the same row in the same moment."""
_TOO_LARGE = 413
_OURS, _THEIRS = ("mlflow_project", "rlinf_isaac"), "mlflow"
_logged: set[str] = set()

logger = logging.getLogger("mlflow_project")


class Unreachable(Exception):
    """The tracking server did not take an operation now; it may later."""


class Contended(Unreachable):
    """Another client did the same in the same moment: looking again shows what it did."""


class RequestTooLarge(Unreachable):
    """A proxy does not let a file of this size through."""


class Refused(Exception):
    """An operation that cannot be applied, now or later. The message says why."""


class OwnFault(Refused):
    """Code of this project failed on an operation. Its message says so."""


def told(reason: str) -> str:
    """The reason why an operation was left aside, with who said so: MLflow, unless it is an `OwnFault`."""
    return reason if _OWN_FAULT in reason else f"MLflow refused: {reason}"


_OWN_FAULT = "a bug of rlinf-isaac, please report it"


@contextmanager
def sorted_errors(*, remote: bool) -> Iterator[None]:
    """Raise what goes wrong in the block as one of the above.

    Args:
        remote: the store is behind HTTP.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (Refused, Unreachable):
        raise
    except MlflowException as error:
        raise _of_mlflow(error, remote=remote) from error
    except json.JSONDecodeError as error:
        raise Unreachable(f"an answer that is no JSON: {first_line(error)}") from error
    except OSError as error:  # before ValueError: some of requests' are both
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
    """The first line of an error's text, without the credentials of a URL in it."""
    return clean_urls(str(error).strip().partition("\n")[0][:500])


def _of_mlflow(error: Exception, *, remote: bool) -> Exception:
    from mlflow.exceptions import RestException

    code = getattr(error, "error_code", "")
    if any(violation in str(error) for violation in _VIOLATIONS):
        return Contended(first_line(error))
    # Without a server BAD_REQUEST is what the database itself said.
    own_word = isinstance(error, RestException) or not remote
    if code in _REFUSALS or (code == "BAD_REQUEST" and own_word):
        return Refused(first_line(error))
    cause = error.__context__  # what requests raised; MLflow's own text is a paragraph
    return Unreachable(type(cause).__name__ if isinstance(cause, OSError) else first_line(error))


def _is_ours(error: Exception) -> bool:
    """Whether it was raised in this project's code, or in a library that this called, rather than in MLflow's."""
    packages = [frame.f_globals.get("__name__", "").split(".")[0] for frame, _ in walk_tb(error.__traceback__)]
    # The first frame is the block of `sorted_errors`.
    inner = next((package for package in reversed(packages[1:]) if package in (*_OURS, _THEIRS)), None)
    return inner in _OURS


def _log(error: Exception) -> None:
    """Log an error with its traceback, once: the same operation is tried in a batch, alone, and again."""
    text = "".join(format_tb(error.__traceback__)[-1:]) + _named(error)
    if text not in _logged:
        _logged.add(text)
        logger.error("%s; what it failed on stays in the journal", _OWN_FAULT, exc_info=error)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
