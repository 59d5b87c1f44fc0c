from __future__ import annotations

from types import SimpleNamespace

import pytest

from rlinf_isaac.envs.host.worker.rows import declared_rates


class Unready:
    """A simulator whose time step is known only when it runs."""

    @property
    def dt(self) -> float:
        raise RuntimeError("not started")


@pytest.mark.parametrize(
    ("env", "rates"),
    [
        (SimpleNamespace(), {}),
        (SimpleNamespace(metadata={"render_fps": 30}), {"metadata['render_fps']": 30}),
        (SimpleNamespace(metadata=None, step_dt=0.05, control_freq=15), {"step_dt": 20, "control_freq": 15}),
        (SimpleNamespace(unwrapped=SimpleNamespace(dt=0.0125), dt=1), {"dt": 80}),
        (SimpleNamespace(dt=0, control_freq=-1, metadata={"render_fps": None}), {}),
        (Unready(), {}),
    ],
)
def test_the_rates_that_an_environment_declares(env, rates):
    assert declared_rates(env) == pytest.approx(rates)
