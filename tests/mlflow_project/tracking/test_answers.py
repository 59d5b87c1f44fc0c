from __future__ import annotations

import json

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, ENDPOINT_NOT_FOUND, INVALID_PARAMETER_VALUE, NOT_IMPLEMENTED

from mlflow_project.tracking.answers import Contended, OwnFault, Refused, RequestTooLarge, Unreachable, sorted_errors


def meaning(error: Exception, *, remote: bool = True) -> type[Exception]:
    with pytest.raises((Refused, Unreachable)) as found, sorted_errors(remote=remote):
        raise error
    return found.type


@pytest.mark.parametrize("code", ["INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST"])
def test_mlflows_own_word_is_a_refusal(code):
    assert meaning(RestException({"error_code": code, "message": "no"})) is Refused


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("API request to endpoint failed with error code 400: <html>", BAD_REQUEST),
        MlflowException("API request to endpoint failed with error code 404: <html>", ENDPOINT_NOT_FOUND),
        MlflowException("API request to endpoint failed with error code 501: <html>", NOT_IMPLEMENTED),
        RestException({"error_code": "ENDPOINT_NOT_FOUND", "message": "an older server"}),
        RestException({"error_code": "PERMISSION_DENIED", "message": "no"}),
        RestException({"message": "no Route matched with those values"}),
        RestException({"detail": "Not Found"}),
        MlflowException("API request to http://x failed with exception"),
        json.JSONDecodeError("Expecting value", "<html>", 0),
        requests.exceptions.JSONDecodeError("Expecting value", "<html>", 0),
        requests.ConnectionError("reset"),
        OSError("disk"),
        RuntimeError("garbled"),
    ],
)
def test_anything_else_from_behind_a_network_is_for_later(error):
    assert meaning(error) is Unreachable


def test_a_database_speaks_for_itself():
    assert meaning(MlflowException("value too long", BAD_REQUEST), remote=False) is Refused
    assert meaning(MlflowException("a param changes", INVALID_PARAMETER_VALUE), remote=False) is Refused


@pytest.mark.parametrize(
    "text",
    [
        "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id",
        '(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "dataset_pk"',
    ],
)
@pytest.mark.parametrize("remote", [True, False])
def test_a_row_that_another_client_wrote_is_looked_at_again(text, remote):
    assert meaning(MlflowException(text, BAD_REQUEST), remote=remote) is Contended
    assert meaning(RestException({"error_code": "BAD_REQUEST", "message": text}), remote=remote) is Contended


def test_a_file_that_a_proxy_finds_too_large():
    response = requests.Response()
    response.status_code = 413
    assert meaning(requests.HTTPError("413", response=response)) is RequestTooLarge


def test_a_message_has_no_password():
    with pytest.raises(Unreachable) as found, sorted_errors(remote=True):
        raise requests.ConnectionError("http://bob:hunter2@host refused")
    assert "hunter2" not in str(found.value)


def test_what_mlflow_itself_trips_over_is_its_refusal():
    with pytest.raises(Refused) as found, sorted_errors(remote=True):
        MlflowClient("sqlite://").log_batch("0" * 32, metrics=[None], synchronous=True)
    assert not isinstance(found.value, OwnFault)
