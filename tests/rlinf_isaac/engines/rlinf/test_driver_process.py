"""Why a run failed, as far as the parent can tell from what RLinf printed. With RLinf itself: test_engine.py."""

from __future__ import annotations

from rlinf_isaac.engines.rlinf.driver_process import cause_in

RAY_TASK_ERROR = """\
[INFO 09:11:12 RLinf] all is well
Exception occurred while running Policies's function begin: exception is \x1b[36mray::Policies.begin()\x1b[39m (pid=1)
  File "worker.py", line 74, in sync_func
    return func(*args, **kwargs)
           ^^^^^^^^^^^^^^^^^^^^^
rlinf_isaac.ground.errors.WeightsError: [weights-keys] x does not fit the model
    -> use the checkpoint's own config
[INFO 09:11:13 RLinf] later: something else
Exception occurred while running Simulators's function begin: exception is The actor died
"""


def test_the_first_failure_is_named_with_its_cure():
    expected = "rlinf_isaac.ground.errors.WeightsError: [weights-keys] x does not fit the model"
    assert cause_in(RAY_TASK_ERROR) == f"{expected} -> use the checkpoint's own config"


def test_a_builtin_exception():
    text = "exception is ray::X.f()\n  File x\nAttributeError: 'A' object has no attribute 'b'\nINFO:OpenGL:no\n"
    assert cause_in(text) == "AttributeError: 'A' object has no attribute 'b'"


def test_a_dead_worker():
    text = "exception is The actor died unexpectedly before finishing this task.\n\tclass_name: Policies\n"
    assert cause_in(text).startswith("The actor died unexpectedly before finishing this task.")


def test_without_a_failure_it_is_the_last_thing_said():
    assert cause_in("one\ntwo\n\n") == "two"
    assert cause_in("") == "it printed nothing"
