"""Reads the scalars of TensorBoard event files, in the form in which RLinf writes them (torch's ``SummaryWriter``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rlinf_isaac.ground.reading import check_regular


class Scalar(NamedTuple):
    """One logged value; `time` in unix seconds."""

    tag: str
    step: int
    value: float
    time: float


class TornFile(ValueError):
    """A record is damaged; all records before it were yielded."""


def read_scalars(path: str | Path) -> Iterator[Scalar]:
    """Yield the scalars of an event file in order. An incomplete last record (of a writer that was killed, or is still
    writing) is ignored.

    TensorBoard's ``EventFileLoader`` also ignores everything after a damaged record, so the history would be shorter
    than what was logged. This function uses the reader below it, which raises in both cases; only the message tells
    them apart.

    Raises:
        TornFile: a record in the middle is damaged.
        OSError: the file is missing, or is not a regular file.
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
            raise TornFile(f"{path} has a record that is not an event: {error}") from error
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield Scalar(value.tag, event.step, value.simple_value, event.wall_time)
