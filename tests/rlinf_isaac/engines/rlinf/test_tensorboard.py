"""Event files as TensorBoard's own writer makes them, whole, cut off and damaged."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import write_scalars
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from rlinf_isaac.engines.rlinf.tensorboard import Scalar, TornFile, read_scalars

SCALARS = st.builds(
    Scalar,
    st.text(min_size=1),
    st.integers(-(2**63), 2**63 - 1),  # RLinf logs step -1 for what is before the first
    st.floats(width=32, allow_nan=False),
    st.floats(0, 4e9),
)
THREE = [Scalar("a", step, float(step), 1.0) for step in range(3)]


@settings(deadline=None)
@given(scalars=st.lists(SCALARS, max_size=5))
def test_scalars_come_as_they_were_logged(tmp_path_factory, scalars):
    path = write_scalars(tmp_path_factory.mktemp("events") / "events", scalars)
    assert list(read_scalars(path)) == scalars


def test_what_torch_writes(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(3):
            writer.add_scalar("env/success_once", step / 4, step)
    (path,) = tmp_path.glob("events.*")
    found = [(tag, step, value) for tag, step, value, _ in read_scalars(path)]
    assert found == [("env/success_once", step, step / 4) for step in range(3)]


def test_what_is_no_scalar_is_left_out(tmp_path):
    with open(tmp_path / "events", "wb") as file:
        image = Summary.Value(tag="an image", image=Summary.Image(encoded_image_string=b"png"))
        loss = Summary.Value(tag="loss", simple_value=0.5)
        event = Event(wall_time=7.0, step=3, summary=Summary(value=[image, loss]))
        for each in (Event(file_version="brain.Event:2"), event):
            RecordWriter(file).write(each.SerializeToString())
    assert list(read_scalars(tmp_path / "events")) == [Scalar("loss", 3, 0.5, 7.0)]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_writer_that_was_killed_leaves_what_is_whole(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("events")
    sizes = [len(write_scalars(directory / "events", THREE[:count]).read_bytes()) for count in range(4)]
    whole = (directory / "events").read_bytes()
    length = data.draw(st.integers(0, len(whole)))
    (directory / "events").write_bytes(whole[:length])
    assert list(read_scalars(directory / "events")) == THREE[: sum(size <= length for size in sizes[1:])]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_flipped_bit_is_noticed(tmp_path_factory, data):
    path = write_scalars(tmp_path_factory.mktemp("events") / "events", THREE)
    whole = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    with pytest.raises(TornFile):
        list(read_scalars(path))


def test_a_whole_record_that_is_no_event(tmp_path):
    with open(tmp_path / "events", "wb") as file:
        RecordWriter(file).write(b"\xff\xff")
    with pytest.raises(TornFile, match="not an event"):
        list(read_scalars(tmp_path / "events"))
