"""Checks the number of objects in a message by its msgpack headers, before any object is created.

A few bytes of msgpack can make megabytes of Python objects: 16 MiB of empty lists are 16 million of them. msgpack's own
limits apply to the length of each list and map, and not to their number.
"""

from __future__ import annotations

from rlinf_isaac.ground.errors import ObservationError

MAX_OBJECTS = 4096
"""Most values and keys in a message, at any depth. An image counts as twelve, whatever its size; an observation has
about forty."""
MAX_DEPTH = 8
"""Deepest nesting of maps and lists. The shape of an array in a nested observation is at level four."""
MAX_TEXT = 1 << 16
"""Most bytes of all strings of a message together, and of an array of strings."""

_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
"""First byte of bytes, strings, lists and maps -> number of bytes of the length that follows."""
_NUMBERS = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
"""First byte of a number -> number of bytes that follow."""
_EXTENSIONS = {*range(0xC7, 0xCA), *range(0xD4, 0xD9)}

_CURE = "send images and long lists as numpy arrays, by openpi_client.msgpack_numpy.packb"


def check_limits(data: bytes) -> None:
    """Check that a message is small enough to be decoded. At most `MAX_OBJECTS` headers are read.

    This does not check that the message is valid msgpack, except that nothing may follow it; a truncated message
    passes.

    Raises:
        ObservationError: ``message-too-large``; or ``bad-message``, for a type that OpenPI does not send, or for bytes
            after the message.
    """
    position, objects, text = 0, 0, 0
    left = [1]  # number of values still to come, in the message and in each open list and map
    while left:
        if not left[-1]:
            left.pop()
            continue
        left[-1] -= 1
        if position >= len(data):
            return
        first = data[position]
        if first in _EXTENSIONS:
            cause = f"the message contains a msgpack extension type (0x{first:02x}), for example a timestamp"
            raise ObservationError.of("bad-message", cause, "send numbers, strings, arrays, lists and maps")
        size, values, is_text, position = _header(data, position)
        objects += 1
        text += size if is_text else 0
        if objects + sum(left) + values > MAX_OBJECTS:
            raise _too_large(f"the message has more than {MAX_OBJECTS} values")
        if text > MAX_TEXT:
            raise _too_large(f"the strings of the message have more than {MAX_TEXT} bytes")
        if values:
            left.append(values)
            if len(left) > MAX_DEPTH + 1:
                raise _too_large(f"more than {MAX_DEPTH} lists and maps are nested in each other")
        position += size
    if position < len(data):
        cause = f"{len(data) - position} bytes follow the message"
        raise ObservationError.of("bad-message", cause, "send one observation in each message")


def _header(data: bytes, position: int) -> tuple[int, int, bool, int]:
    """Number of bytes after the header, number of values inside, whether it is text, and the end of the header."""
    first, after = data[position], position + 1
    if first in _NUMBERS:
        return _NUMBERS[first], 0, False, after
    if first in _LENGTHS:
        after += _LENGTHS[first]
        length = int.from_bytes(data[position + 1 : after], "big")
        if first >= 0xDC:
            return 0, length * (2 if first >= 0xDE else 1), False, after
        return length, 0, first >= 0xD9, after
    if 0xA0 <= first < 0xC0:
        return first & 0x1F, 0, True, after
    if 0x80 <= first < 0xA0:
        return 0, (first & 0x0F) * (2 if first < 0x90 else 1), False, after
    return 0, 0, False, after  # nil, a bool or a small number; or 0xC1, which msgpack does not use


def _too_large(cause: str) -> ObservationError:
    return ObservationError.of("message-too-large", cause, _CURE)
