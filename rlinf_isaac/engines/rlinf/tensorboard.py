"""Scalars of TensorBoard event files, as ``SummaryWriter.add_scalar`` of torch, which RLinf logs with, writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlinf_isaac.ground.reading import check_regular


class Scalar(NamedTuple):
    """One logged value. `time` is unix seconds."""

    tag: str
    step: int
    value: float
    time: float


class TornFile(ValueError):
    """A record is damaged. Everything before it was given."""


def read_scalars(path: str | Path) -> Iterator[Scalar]:
    """The scalars of one event file, in its order. A last record that is not complete (the writer was killed, or is at
    work) ends it quietly.

    TensorBoard's ``EventFileLoader`` ends as quietly where a record is damaged, with a shorter history than was logged.
    So this is the reader below it, which raises in both cases; only its message tells which it was.

    Raises:
        TornFile: a record in the middle is damaged.
        OSError: it is missing, or no file.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.errors import DataLossError, OutOfRangeError
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    check_regular(path)
    reader = PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
            event = Event.FromString(reader.record())
        except OutOfRangeError:
            return
        except DataLossError as error:
            if "truncated record" in str(error):
                return
            raise TornFile(str(error)) from error
        except DecodeError as error:
            raise TornFile(f"{path} has a record that is no event: {error}") from error
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield Scalar(value.tag, event.step, value.simple_value, event.wall_time)
