"""What an MLflow client's error means for the record that was sent: refused, or to be sent again.

A refusal is final, so it takes MLflow's own word, about this very record: its JSON error, or an exception of the store
or of the client's own checks where there is no server between. A page of a proxy, an endpoint that is not known, a
garbled answer mean "later", whatever their status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow_project.tracking.redact import clean_urls

_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
"""Codes that MLflow alone gives. It reads the status of a page as another one: 400 as BAD_REQUEST, 404 as
ENDPOINT_NOT_FOUND (`mlflow.exceptions.HTTP_STATUS_TO_ERROR_CODE`)."""
_VIOLATIONS = ("UNIQUE constraint failed", "UniqueViolation", "Duplicate entry", "duplicate key")
"""How sqlite, PostgreSQL and others say that another client wrote the same row in the same moment."""
_TOO_LARGE = 413


class Unreachable(Exception):
    """The tracking server did not take an operation now; it may later."""


class Contended(Unreachable):
    """Another client did the same in the same moment: looking again shows what it did."""


class RequestTooLarge(Unreachable):
    """A proxy does not let a file of this size through."""


class Refused(Exception):
    """An operation that cannot be applied, now or later. The message says why."""


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
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Refused(_named(error)) from error
    except Exception as error:
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


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
