"""Where a dataset's files lie is filled in as lerobot does it, and in no other way."""

from __future__ import annotations

import pytest
from faults.hostile_datasets import TEMPLATES
from hypothesis import given
from hypothesis import strategies as st
from support import V21_VIDEOS, V30_VIDEOS

from rlinf_isaac.data.lerobot.format import DATA_PATH
from rlinf_isaac.data.lerobot.path_template import PathTemplate
from rlinf_isaac.ground.errors import DatasetError

V30_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
LEROBOT = [("v2.1", DATA_PATH), ("v2.1", V21_VIDEOS), ("v3.0", V30_DATA), ("v3.0", V30_VIDEOS)]
# Odd, and nothing that could do harm; the files are not there.
HARMLESS = ("commands for the terminal", "a file name of four thousand letters", "a directory", "a device")


@pytest.mark.parametrize(("version", "text"), LEROBOT)
@given(numbers=st.lists(st.integers(0, 10**11), min_size=4, max_size=4), key=st.text("abc._", min_size=1))
def test_those_of_lerobot_are_filled_in_as_python_does(version, text, numbers, key):
    names = ("episode_chunk", "episode_index", "chunk_index", "file_index")
    values = {**dict(zip(names, numbers, strict=True)), "video_key": f"observation.images.{key}"}
    assert PathTemplate(text, "data_path", version).fill(values) == text.format(**values)


@pytest.mark.parametrize("form", ["{episode_index}", "{episode_index:d}", "{episode_index:6d}", "{episode_index:06d}"])
def test_other_forms_of_a_number(form):
    assert PathTemplate(form, "data_path", "v2.1").fill({"episode_index": 7}) == form.format(episode_index=7)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name not in HARMLESS])
def test_what_lerobot_does_not_write_is_refused_before_it_is_filled_in(name):
    with pytest.raises(DatasetError) as error:
        PathTemplate(TEMPLATES[name], "data_path", "v2.1")
    (problem,) = error.value.problems
    assert problem.code in ("path-template", "path-outside")
    assert len(problem.cause) < 1500


@pytest.mark.parametrize("key", ["../../etc", "/etc/passwd", "a/../../../b", "\0"])
def test_a_video_whose_name_leads_out(key):
    with pytest.raises(DatasetError, match="path-outside"):
        PathTemplate("{video_key}/x.mp4", "video_path", "v2.1").fill({"video_key": key})


def test_a_field_of_the_other_version():
    with pytest.raises(DatasetError, match="path-template"):
        PathTemplate(DATA_PATH, "data_path", "v3.0")


def test_a_name_in_braces_is_a_name():
    assert PathTemplate("{video_key}", "video_path", "v2.1").fill({"video_key": "{episode_index}"}) == "{episode_index}"
