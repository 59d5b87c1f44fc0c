"""Traces of a real server's calls in a real store, and a store that is not there."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from serving_support import expected, observation, running

from mlflow_project.recorders.logged_checkpoints import log_model
from mlflow_project.serving.batcher import Answer
from mlflow_project.serving.traces import WAITING, Traces
from mlflow_project.tracking.runs import tracked_run


@pytest.fixture(autouse=True)
def tracing(monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")  # so that it is undone


def test_a_call_is_a_trace_of_the_checkpoints_model(store, bundle, policy, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    with tracked_run("sft", output=Path("out")) as run:
        log_model(run.recorder, bundle, "pi0-tiny", "output")
    traces = Traces(bundle, 600)
    with running(policy, heard=traces.note) as server, server.client() as client:
        sent = [observation(index) for index in range(3)]
        actions = [client.infer(each)["actions"] for each in sent]
    while traces.written + traces.lost < 3:
        threading.Event().wait(0.01)
    traces.close()
    assert (traces.written, traces.lost) == (3, 0)

    mlflow = MlflowClient(store)
    experiment = mlflow.get_experiment_by_name("rlinf-isaac").experiment_id
    (model,) = mlflow.search_logged_models([experiment])
    found = mlflow.search_traces(locations=[experiment], order_by=["timestamp_ms ASC"])
    assert [each.info.trace_metadata["mlflow.modelId"] for each in found] == [model.model_id] * 3
    assert {each.info.tags["checkpoint"] for each in found} == {"step-6"}
    for trace, asked, answered in zip(found, sent, actions, strict=True):
        root, queue, call = trace.data.spans
        assert root.inputs["prompt"] == asked["prompt"]
        np.testing.assert_allclose(root.inputs["state"], asked["observation/state"], atol=1e-4)
        assert root.outputs["shape"] == list(answered.shape)
        np.testing.assert_allclose(root.outputs["first_action"], answered[0], atol=1e-4)
        assert (queue.name, call.name) == ("queue", "model")
        assert root.start_time_ns <= queue.start_time_ns <= queue.end_time_ns == call.start_time_ns
        assert call.end_time_ns == root.end_time_ns
        assert root.get_attribute("infer_ms") > 0


def test_a_store_that_does_not_answer_costs_traces_and_no_calls(bundle, policy, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    traces = Traces(bundle, 600)
    with running(policy, heard=traces.note) as server, server.client() as client:
        for index in range(3):
            actions = client.infer(observation(index))["actions"]
            np.testing.assert_array_equal(actions, expected(policy, observation(index)))
    traces.close()
    assert (traces.written, traces.lost) == (0, 3)


def test_there_are_never_more_than_were_asked_for(bundle, policy, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    request = policy.spec.parse(observation(0), (0, 0, 0))
    answer = Answer(policy.infer([request])[0], 0.0, 0.01, 1)
    few = Traces(bundle, 1)
    for _ in range(1000):
        few.note(request, answer, 0.01)
    few.close()
    assert few.lost == 1, "the others were never queued"

    many = Traces(bundle, 6000)
    many.close()  # nobody reads the queue any more
    for _ in range(WAITING + 100):
        many.note(request, answer, 0.01)
    assert many.lost == 100
