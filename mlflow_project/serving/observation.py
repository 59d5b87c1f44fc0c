"""One request to a policy: an observation as robot clients send it, checked and brought into the policy's form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from rlinf_isaac.ground.errors import ObservationError, Problem
from rlinf_isaac.pi0.tokenizer import clean_prompt
from rlinf_isaac.pi0.transforms import resize_with_pad, resized_sides

SPELLINGS = {
    "front": ("observation/image", "images/front", "observation.images.front"),
    "wrist": ("observation/wrist_image", "images/wrist", "observation.images.wrist"),
    "state": ("observation/state", "state", "observation.state"),
    "prompt": ("prompt",),
    "noise_key": ("noise_key",),
}
"""What the policy calls each entry -> what clients call it: as OpenPI's LIBERO and RLinf's IsaacLab policies (``/`` is
also a nested dict, as in OpenPI), and as LeRobot datasets do. Other entries are ignored, as OpenPI does."""

VIEWS = ("front", "wrist")
MAX_SIDE = 4096
"""Of an image, in pixels."""

NoiseKey = tuple[int, int, int]
"""(policy seed, episode seed, call index), each in [0, 2^32): what `episode_noise` draws from."""


class Request(NamedTuple):
    """One row of a policy call.

    Attributes:
        images: view -> (S, S, 3) uint8 of the model's size.
        state: (D,) float32 in robot units.
        prompt: the instruction.
        noise_key: all the randomness there is.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    prompt: str
    noise_key: NoiseKey


@dataclass(frozen=True)
class ObservationSpec:
    """What the policy of one checkpoint takes.

    Attributes:
        image_size: side in pixels that images are brought to, as in the training.
        state_names: of every entry of the state.
        prompts: those of the training; the first is used where a client sends none.
        any_prompt: whether others are taken, too.
    """

    image_size: int
    state_names: tuple[str, ...]
    prompts: tuple[str, ...]
    any_prompt: bool = False

    def parse(self, observation: Any, noise_key: NoiseKey) -> Request:
        """The request of one observation; `noise_key` unless the client sends its own.

        Raises:
            ObservationError: with everything that is wrong with it.
        """
        if not isinstance(observation, dict):
            cause = f"an observation is a map of names to arrays, not {type(observation).__name__}"
            raise ObservationError.of("bad-message", cause, "send a dict")
        entries = {
            name: next((value for each in spellings if (value := _find(observation, each)) is not None), None)
            for name, spellings in SPELLINGS.items()
        }
        readers: dict[str, Callable[[Any], Any]] = {
            **{view: partial(_image, view, self.image_size) for view in VIEWS},
            "state": self._state,
            "prompt": self._prompt,
            "noise_key": partial(_noise_key, noise_key),
        }
        read: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, reader in readers.items():
            try:
                if entries[name] is None and name in (*VIEWS, "state"):
                    cause = f"there is no {SPELLINGS[name][0]!r}, only {_names(observation)}"
                    raise ObservationError.of("observation-missing", cause, "send it")
                read[name] = reader(entries[name])
            except ObservationError as error:
                problems += error.problems
        if problems:
            raise ObservationError(problems)
        images = {view: resize_with_pad(read[view], self.image_size) for view in VIEWS}
        return Request(images, read["state"], read["prompt"], read["noise_key"])

    def _state(self, value: Any) -> np.ndarray:
        state, dims = as_array(value), len(self.state_names)
        if state.dtype.kind not in "biuf" or state.shape != (dims,):
            cause = f"the state has shape {state.shape} of {state.dtype}, not ({dims},): {', '.join(self.state_names)}"
            raise ObservationError.of("observation-state", cause, "send these entries in this order, in robot units")
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is refused
            state = state.astype(np.float32)
        if not np.isfinite(state).all():
            cause = f"the state holds NaN or infinity at {np.flatnonzero(~np.isfinite(state)).tolist()}"
            raise ObservationError.of("observation-state", cause, "send finite numbers")
        return state

    def _prompt(self, value: Any) -> str:
        if value is None:
            return self.prompts[0]
        try:
            if isinstance(value, np.ndarray) and value.size == 1:  # OpenPI's clients send np.asarray("...") at times
                value = value.item()
            if isinstance(value, str):
                value.encode()
        except ValueError as error:  # numpy's strings may hold what is no character
            cause = "the prompt holds code points that are no characters"
            raise ObservationError.of("observation-prompt", cause, "send a string") from error
        if not isinstance(value, str):
            raise ObservationError.of("observation-prompt", f"the prompt is a {type(value).__name__}", "send a string")
        known = {clean_prompt(prompt): prompt for prompt in self.prompts}
        if not self.any_prompt and clean_prompt(value) not in known:
            cause = f"the prompt {value[:200]!r} is not among those of the training: {', '.join(map(repr, known))}"
            cure = "send one of these or none; `serve --any-prompt` takes every one"
            raise ObservationError.of("observation-prompt", cause, cure)
        return value


def _find(observation: Mapping[Any, Any], name: str) -> Any:
    """The entry ``a/b``, also of ``{"a": {"b": ...}}``. One level: no spelling has more. None where there is none."""
    if name in observation:
        return observation[name]
    outer, slash, inner = name.partition("/")
    inside = observation.get(outer) if slash else None
    return inside.get(inner) if isinstance(inside, dict) else None


def _names(observation: Mapping[Any, Any]) -> str:
    """The first entries of an observation, for a message."""
    pairs = ((key, inner) for key, inside in observation.items() for inner in _keys(inside))
    names = ["/".join(_short(part) for part in pair if part is not None) for pair in islice(pairs, 12)]
    return str(sorted(names))


def _short(key: Any) -> str:
    return str(key[:40] if isinstance(key, str | bytes) else key)


def _keys(inside: Any) -> Iterable[Any]:
    return inside if isinstance(inside, dict) and inside else (None,)


def as_array(value: Any) -> np.ndarray:
    """`value` as an array, from lists only of numbers: numpy would make them as wide as the longest string in them. As
    one of objects, which is refused further on, where there is no such array."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    try:
        return np.asarray(value) if _is_numeric(value) else np.empty(0, object)
    except ValueError:  # lists of different lengths
        return np.empty(0, object)


def _is_numeric(value: Any) -> bool:
    """Whether it is a number, or lists of numbers in lists."""
    if isinstance(value, list | tuple):
        return all(map(_is_numeric, value))
    return isinstance(value, int | float | np.bool_ | np.number)


def _image(view: str, size: int, value: Any) -> np.ndarray:
    """(h, w, 3) uint8, also from (3, h, w) and from floats in [0, 1], as OpenPI's ``_parse_image``; one that can be
    brought into a square of `size`."""
    image = as_array(value)
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[-1] != 3:
        image = image.transpose(1, 2, 0)
    fits = image.ndim == 3 and image.shape[-1] == 3 and all(0 < side <= MAX_SIDE for side in image.shape[:2])
    with np.errstate(all="ignore"):
        if fits and image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:  # NaN is neither
            image = (255 * image).astype(np.uint8)
    name = SPELLINGS[view][0]
    if not fits or image.dtype != np.uint8:
        cause = f"the image {name!r} has shape {image.shape} of {image.dtype}"
        raise ObservationError.of("observation-image", cause, "send (height, width, 3) uint8, or float in [0, 1]")
    height, width = image.shape[:2]
    if 0 in resized_sides(height, width, size):
        cause = f"the image {name!r} of {height} x {width} pixels would vanish in {size} x {size}"
        cure = f"send one whose longer side is at most {size} times the shorter one"
        raise ObservationError.of("observation-image", cause, cure)
    return np.ascontiguousarray(image)


def _noise_key(default: NoiseKey, value: Any) -> NoiseKey:
    if value is None:
        return default
    parts = value.tolist() if isinstance(value, np.ndarray) and value.shape == (3,) else value
    if isinstance(parts, list | tuple) and len(parts) == 3 and all(type(p) is int and 0 <= p < 2**32 for p in parts):
        return (parts[0], parts[1], parts[2])
    what = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    cause = f"noise_key is {what}, and not three integers in their range"
    raise ObservationError.of("observation-noise-key", cause, "send [policy seed, episode seed, call], in [0, 2^32)")
