from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlflow_project.serving.codec import pack, unpack
from mlflow_project.serving.observation import ObservationSpec, Request
from rlinf_isaac.ground.errors import ObservationError
from rlinf_isaac.tasks.registry import find_task

OF_STACK_CUBE = {slot: each.dataset for slot, each in find_task("stack2").cameras.items()}, "observation.state"
SPEC = ObservationSpec(32, ("x", "y"), ("Stack the red block.",), *OF_STACK_CUBE)
IMAGE = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
WRIST = IMAGE[::-1]
KEY = (1, 2, 3)


def given(**changes):
    return {"observation/image": IMAGE, "observation/wrist_image": WRIST, "observation/state": np.zeros(2)} | changes


def codes(observation, spec=SPEC) -> list[str]:
    with pytest.raises(ObservationError) as refused:
        spec.parse(observation, KEY)
    return [problem.code for problem in refused.value.problems]


@pytest.mark.parametrize(
    "observation",
    [
        given(),
        {"observation": {"image": IMAGE, "wrist_image": WRIST, "state": [0, 0]}},
        {"images": {"front": IMAGE, "wrist": WRIST}, "state": np.zeros(2, np.float32)},
        {
            "observation.images.front": IMAGE,
            "observation.images.wrist": WRIST,
            "observation.state": np.zeros(2, int),
            "another": 1,
        },
        given(**{"observation/image": IMAGE.transpose(2, 0, 1)}),
        given(**{"observation/image": IMAGE / 255 + 1e-9}) | {"observation/image": (IMAGE / 255 + 1e-9).clip(0, 1)},
    ],
)
def test_spellings(observation):
    request = SPEC.parse(observation, KEY)
    np.testing.assert_array_equal(request.images["base_0_rgb"], IMAGE)
    np.testing.assert_array_equal(request.images["left_wrist_0_rgb"], WRIST)
    assert request.state.dtype == np.float32
    assert request.prompt == SPEC.prompts[0]
    assert request.noise_key == KEY


def test_images_are_brought_to_the_size_of_the_training():
    request = SPEC.parse(given(**{"observation/image": np.full((48, 64, 3), 255, np.uint8)}), KEY)
    assert request.images["base_0_rgb"].shape == (32, 32, 3)
    assert request.images["base_0_rgb"][0].max() == 0, "padded, not stretched"
    assert request.images["base_0_rgb"][16].min() == 255


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((0, 32, 3), np.uint8),
        np.zeros((1, 5000, 3), np.uint8),
        np.zeros((1, 33, 3), np.uint8),
        np.zeros((4096, 1, 3), np.uint8),
        [[[0.5, 0.5, 0.5], [0.5, 0.5]]],
        [np.zeros((32, 32))] * 3,
        np.zeros((32, 32, 3), np.int16),
        np.full((32, 32, 3), 2.0),
        np.full((32, 32, 3), np.nan),
        "image",
        None,
    ],
)
def test_images_that_are_refused(image):
    code = "observation-missing" if image is None else "observation-image"
    assert codes(given(**{"observation/image": image})) == [code]


@pytest.mark.parametrize(("height", "width"), [(1, 32), (32, 1), (128, 4096), (4096, 128), (1, 1), (4096, 4096)])
def test_images_whose_sides_differ_by_as_much_as_can_be_resized(height, width):
    request = SPEC.parse(given(**{"observation/image": np.full((height, width, 3), 255, np.uint8)}), KEY)
    assert request.images["base_0_rgb"].max() == 255


@pytest.mark.parametrize("state", [[0], [0, 0, 0], [[0, 0]], ["a", "b"], [0, np.nan], [0, np.inf], [0, 1e300], 0])
def test_states_that_are_refused(state):
    assert codes(given(**{"observation/state": np.asarray(state)})) == ["observation-state"]
    assert codes(given(**{"observation/state": state})) == ["observation-state"]


def test_everything_that_is_missing_is_named():
    assert codes({"unknown": 1}) == ["observation-missing"] * 3
    assert codes([1, 2]) == ["bad-message"]
    assert codes(None) == ["bad-message"]


def test_everything_that_is_wrong_is_named():
    wrong = given(**{"observation/image": 1, "observation/state": 2}, prompt=3, noise_key=4)
    assert codes(wrong) == ["observation-image", "observation-state", "observation-prompt", "observation-noise-key"]


def test_prompts():
    assert SPEC.parse(given(prompt=np.asarray("Stack the red block.")), KEY).prompt == "Stack the red block."
    assert SPEC.parse(given(prompt=" Stack the_red block.\n"), KEY).prompt.startswith(" ")
    assert codes(given(prompt="Dance.")) == ["observation-prompt"]
    assert codes(given(prompt=3)) == ["observation-prompt"]
    free = ObservationSpec(32, ("x", "y"), ("Stack the red block.",), *OF_STACK_CUBE, any_prompt=True)
    assert free.parse(given(prompt="Dance."), KEY).prompt == "Dance."


def test_noise_keys():
    assert SPEC.parse(given(noise_key=np.array([7, 8, 2**32 - 1])), KEY).noise_key == (7, 8, 2**32 - 1)
    for wrong in ([1, 2], [1, 2, -1], [1, 2, 2**32], [1, 2, 3.0], "123", 5, [True, 1, 2]):
        assert codes(given(noise_key=wrong)) == ["observation-noise-key"]


SIDES = st.integers(0, 4) | st.sampled_from([32, 33, 200, 4096, 4097])
SHAPES = st.one_of(st.lists(SIDES, max_size=2).map(tuple), st.tuples(SIDES, SIDES, st.integers(1, 4)))
ARRAYS = hnp.arrays(
    st.sampled_from(["?", "u1", ">i8", "f2", ">f4", "f8", "g", "U3", "S2"]),
    SHAPES.filter(lambda shape: np.prod(shape) < 20_000),
)
ANYTHING = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary() | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [name for spellings in SPEC.spellings.values() for name in spellings] + ["images", "observation"]
)


@settings(deadline=None)
@for_all(st.dictionaries(NAMES, ANYTHING), st.booleans(), st.booleans(), st.data())
def test_whatever_is_sent_is_taken_or_refused(observation, with_the_rest, any_prompt, data):
    """Nothing but an ObservationError leaves what the server does with a message, also with a damaged one."""
    message = bytearray(pack(given(**observation) if with_the_rest else observation))
    for _ in range(data.draw(st.integers(0, 2))):
        message[data.draw(st.integers(0, min(len(message), 400) - 1))] = data.draw(st.integers(0, 255))
    spec = replace(SPEC, any_prompt=any_prompt)
    try:
        request = spec.parse(unpack(bytes(message)), KEY)
    except ObservationError:
        return
    assert isinstance(request, Request)
    assert all(image.shape == (32, 32, 3) and image.dtype == np.uint8 for image in request.images.values())
    assert request.state.shape == (2,)
    assert np.isfinite(request.state).all()
    request.prompt.encode()
