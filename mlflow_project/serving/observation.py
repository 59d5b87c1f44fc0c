"""Checks an observation sent by a robot client and converts it to the form that the policy needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from mlflow_project.serving.spellings import spellings
from rlinf_isaac.ground.errors import ObservationError, Problem
from rlinf_isaac.pi0.tokenizer import clean_prompt
from rlinf_isaac.pi0.transforms import resize_with_pad, resized_sides

MAX_SIDE = 4096
"""Largest side of an image, in pixels."""

NoiseKey = tuple[int, int, int]
"""(policy seed, episode seed, call index), each in [0, 2^32): the seed of `episode_noise`."""


class Request(NamedTuple):
    """One row of a policy call.

    Attributes:
        images: slot of the model -> (S, S, 3) uint8, of the model's size.
        state: (D,) float32 in robot units.
        prompt: the instruction.
        noise_key: seed of the noise, the only randomness of the call.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray
    prompt: str
    noise_key: NoiseKey


@dataclass(frozen=True)
class ObservationSpec:
    """The observations that the policy of a checkpoint accepts.

    Attributes:
        image_size: side in pixels to which images are resized, as in the training.
        state_names: name of every entry of the state.
        prompts: prompts of the training; the first one is used if a client sends none.
        cameras: slot of the model -> feature of the dataset, from which the names follow that clients may use.
        state: feature of the dataset.
        any_prompt: whether other prompts are accepted, too.
    """

    image_size: int
    state_names: tuple[str, ...]
    prompts: tuple[str, ...]
    cameras: Mapping[str, str]
    state: str
    any_prompt: bool = False

    @cached_property
    def spellings(self) -> dict[str, tuple[str, ...]]:
        """Name of an entry -> names that clients may use for it, the one that messages propose first. Other entries of
        an observation are ignored, as in OpenPI."""
        return spellings(self.cameras, self.state)

    def parse(self, observation: Any, noise_key: NoiseKey) -> Request:
        """Convert an observation to a request. `noise_key` is used unless the client sends its own.

        Raises:
            ObservationError: lists all problems of the observation.
        """
        if not isinstance(observation, dict):
            cause = f"an observation is a map of names to arrays, not {type(observation).__name__}"
            raise ObservationError.of("bad-message", cause, "send a dict")
        entries = {
            name: next((value for key in names if (value := _find(observation, key)) is not None), None)
            for name, names in self.spellings.items()
        }
        readers: dict[str, Callable[[Any], Any]] = {
            **{slot: partial(_image, self.spellings[slot][0], self.image_size) for slot in self.cameras},
            "state": self._state,
            "prompt": self._prompt,
            "noise_key": partial(_noise_key, noise_key),
        }
        read: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, reader in readers.items():
            try:
                if entries[name] is None and name in (*self.cameras, "state"):
                    wanted = self.spellings[name][0]
                    cause = f"there is no {wanted!r}, only {_names(observation)}"
                    raise ObservationError.of("observation-missing", cause, f"send {wanted!r}")
                read[name] = reader(entries[name])
            except ObservationError as error:
                problems += error.problems
        if problems:
            raise ObservationError(problems)
        images = {slot: resize_with_pad(read[slot], self.image_size) for slot in self.cameras}
        return Request(images, read["state"], read["prompt"], read["noise_key"])

    def _state(self, value: Any) -> np.ndarray:
        state, dims = as_array(value), len(self.state_names)
        if state.dtype.kind not in "biuf" or state.shape != (dims,):
            cause = f"the state has shape {state.shape} of {state.dtype}, not ({dims},): {', '.join(self.state_names)}"
            raise ObservationError.of("observation-state", cause, "send these entries in this order, in robot units")
        with np.errstate(over="ignore", invalid="ignore"):  # values that overflow are refused below
            state = state.astype(np.float32)
        if not np.isfinite(state).all():
            cause = f"the state has NaN or infinity at {np.flatnonzero(~np.isfinite(state)).tolist()}"
            raise ObservationError.of("observation-state", cause, "send finite numbers")
        return state

    def _prompt(self, value: Any) -> str:
        if value is None and self.prompts:
            return self.prompts[0]
        try:
            if isinstance(value, np.ndarray) and value.size == 1:  # some of OpenPI's clients send np.asarray("...")
                value = value.item()
            if isinstance(value, str):
                value.encode()
        except ValueError as error:  # numpy's strings may contain invalid code points
            cause = "the prompt contains code points that are not characters"
            raise ObservationError.of("observation-prompt", cause, "send a string") from error
        if not isinstance(value, str):
            raise ObservationError.of("observation-prompt", f"the prompt is a {type(value).__name__}", "send a string")
        trained = {clean_prompt(prompt): prompt for prompt in self.prompts}
        if not self.any_prompt and clean_prompt(value) not in trained:
            cause = f"the prompt {value[:200]!r} is not among those of the training: {', '.join(map(repr, trained))}"
            cure = "send one of these or none; `serve --any-prompt` accepts every prompt"
            raise ObservationError.of("observation-prompt", cause, cure)
        return value


def _find(observation: Mapping[Any, Any], name: str) -> Any:
    """The entry ``a/b``, also from ``{"a": {"b": ...}}``; None if it is missing. No name has more than one level."""
    if name in observation:
        return observation[name]
    outer, slash, inner = name.partition("/")
    inside = observation.get(outer) if slash else None
    return inside.get(inner) if isinstance(inside, dict) else None


def _names(observation: Mapping[Any, Any]) -> str:
    """Names of the first entries of an observation, for an error message."""
    pairs = ((key, inner) for key, inside in observation.items() for inner in _keys(inside))
    names = ["/".join(_short(part) for part in pair if part is not None) for pair in islice(pairs, 12)]
    return str(sorted(names))


def _short(key: Any) -> str:
    return str(key[:40] if isinstance(key, str | bytes) else key)


def _keys(inside: Any) -> Iterable[Any]:
    return inside if isinstance(inside, dict) and inside else (None,)


def as_array(value: Any) -> np.ndarray:
    """`value` as an array. Lists are converted only if they contain nothing but numbers, because numpy would make every
    element as wide as the longest string. Otherwise an empty object array is returned, which later checks refuse."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    try:
        return np.asarray(value) if _is_numeric(value) else np.empty(0, object)
    except ValueError:  # lists of different lengths
        return np.empty(0, object)


def _is_numeric(value: Any) -> bool:
    """Whether `value` is a number or nested lists of numbers."""
    if isinstance(value, list | tuple):
        return all(map(_is_numeric, value))
    return isinstance(value, int | float | np.bool_ | np.number)


def _image(name: str, size: int, value: Any) -> np.ndarray:
    """Convert an image to (h, w, 3) uint8, also from (3, h, w) and from floats in [0, 1], like OpenPI's
    ``_parse_image``; check that it can be resized into a square of `size` pixels."""
    image = as_array(value)
    if image.ndim == 3 and image.shape[0] == 3 and image.shape[-1] != 3:
        image = image.transpose(1, 2, 0)
    fits = image.ndim == 3 and image.shape[-1] == 3 and all(0 < side <= MAX_SIDE for side in image.shape[:2])
    with np.errstate(all="ignore"):
        if fits and image.dtype.kind == "f" and image.min() >= 0 and image.max() <= 1:  # both are false for NaN
            image = (255 * image).astype(np.uint8)
    if not fits or image.dtype != np.uint8:
        cause = f"the image {name!r} has shape {image.shape} of {image.dtype}"
        raise ObservationError.of("observation-image", cause, "send (height, width, 3) uint8, or float in [0, 1]")
    height, width = image.shape[:2]
    if 0 in resized_sides(height, width, size):
        cause = f"the image {name!r} of {height} x {width} pixels would be resized to nothing in {size} x {size}"
        cure = f"send an image whose longer side is at most {size} times the shorter one"
        raise ObservationError.of("observation-image", cause, cure)
    return np.ascontiguousarray(image)


def _noise_key(default: NoiseKey, value: Any) -> NoiseKey:
    if value is None:
        return default
    parts = value.tolist() if isinstance(value, np.ndarray) and value.shape == (3,) else value
    if isinstance(parts, list | tuple) and len(parts) == 3 and all(type(p) is int and 0 <= p < 2**32 for p in parts):
        return (parts[0], parts[1], parts[2])
    what = f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    cause = f"noise_key is {what}, not three integers in the allowed range"
    raise ObservationError.of("observation-noise-key", cause, "send [policy seed, episode seed, call], in [0, 2^32)")
