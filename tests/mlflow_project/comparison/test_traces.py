from __future__ import annotations

import pytest

from mlflow_project.comparison.traces import as_script, from_script, trace_name


def test_a_trace_survives_the_script():
    assert from_script(as_script('{"at": [0, 8]}')) == {"at": [0, 8]}
    assert trace_name("videos/walk/flat/episode_003.mp4") == "videos/walk/flat/episode_003.trace.mjs"


@pytest.mark.parametrize("script", ["", "alert(1)", as_script("[1]"), as_script("{}); alert(1"), as_script('{"at":')])
def test_what_is_no_trace_is_refused(script):
    with pytest.raises(ValueError, match="no trace"):
        from_script(script)
