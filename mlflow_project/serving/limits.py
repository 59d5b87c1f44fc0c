"""What a message may hold, found by walking over its msgpack headers. Nothing of it is built before it has passed.

A few bytes of msgpack make megabytes of Python objects: 16 MiB of empty lists are 16 million of them. msgpack's own
limits are of each list and map, and not of how many there are.
"""

from __future__ import annotations

from rlinf_isaac.ground.errors import ObservationError

MAX_OBJECTS = 4096
"""Values and keys in a message, at any depth; an image counts twelve, whatever its size. An observation has about
forty."""
MAX_DEPTH = 8
"""Maps and lists inside each other. The shape of an array in a nested observation lies in the fourth."""
MAX_TEXT = 1 << 16
"""Bytes of all strings of a message together, and of an array of strings."""

_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
"""First byte of a value that says its length -> bytes that the length takes: of bytes, strings, lists and maps."""
_NUMBERS = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
"""First byte of a number -> bytes that follow it."""
_EXTENSIONS = {*range(0xC7, 0xCA), *range(0xD4, 0xD9)}

_CURE = "send images and long lists as numpy arrays, by openpi_client.msgpack_numpy.packb"


def check_limits(data: bytes) -> None:
    """Pass a message that is small enough to be built. It takes time for `MAX_OBJECTS` at most.

    Whether it is msgpack at all is not asked, except that nothing may follow it; a message that ends too early passes.

    Raises:
        ObservationError: ``message-too-large``; or ``bad-message``, for a type that OpenPI does not send, or for bytes
            behind the message.
    """
    position, objects, text = 0, 0, 0
    left = [1]  # values still to come, of the message and of each list and map that is open
    while left:
        if not left[-1]:
            left.pop()
            continue
        left[-1] -= 1
        if position >= len(data):
            return
        first = data[position]
        if first in _EXTENSIONS:
            cause = f"the message holds a msgpack extension type (0x{first:02x}), a timestamp for example"
            raise ObservationError.of("bad-message", cause, "send numbers, strings, arrays, lists and maps")
        size, values, is_text, position = _header(data, position)
        objects += 1
        text += size if is_text else 0
        if objects + sum(left) + values > MAX_OBJECTS:
            raise _too_large(f"the message holds more than {MAX_OBJECTS} values")
        if text > MAX_TEXT:
            raise _too_large(f"the strings of the message have more than {MAX_TEXT} bytes")
        if values:
            left.append(values)
            if len(left) > MAX_DEPTH + 1:
                raise _too_large(f"more than {MAX_DEPTH} lists and maps lie inside each other")
        position += size
    if position < len(data):
        cause = f"{len(data) - position} bytes follow the message"
        raise ObservationError.of("bad-message", cause, "send one observation in each message")


def _header(data: bytes, position: int) -> tuple[int, int, bool, int]:
    """Bytes of a value behind its header, values inside it, whether it is text, and where its header ends."""
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
    return 0, 0, False, after  # nil, a bool, a small number; or 0xC1, which is nothing


def _too_large(cause: str) -> ObservationError:
    return ObservationError.of("message-too-large", cause, _CURE)
