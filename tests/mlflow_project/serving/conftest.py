"""A real policy and a real server, shared: tests only talk to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving_support import Running, running

from mlflow_project.serving.policy import ServedPolicy, serving_config
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle


@pytest.fixture(scope="session")
def bundle(small_checkpoints) -> Bundle:
    return read_bundle(small_checkpoints / "6")


@pytest.fixture(scope="session")
def policy(bundle) -> ServedPolicy:
    return ServedPolicy(bundle, serving_config(bundle))


@pytest.fixture(scope="session")
def server(policy) -> Iterator[Running]:
    """With the default limits."""
    with running(policy) as one:
        yield one
