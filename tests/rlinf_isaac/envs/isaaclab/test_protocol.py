from __future__ import annotations

import numpy as np

from rlinf_isaac.envs.isaaclab.protocol import VIDEO_SIZE, SharedArrays
from rlinf_isaac.envs.stack_cube import contract

TASK = contract.TASKS["stack3"]


def test_both_sides_see_the_same_arrays_and_none_overlaps():
    ours = SharedArrays(3, TASK, 16)
    theirs = SharedArrays(3, TASK, 16, ours.fd)

    def arrays(shared: SharedArrays) -> list[np.ndarray]:
        own = [shared.actions, shared.active, shared.success, shared.dropped, shared.time_out, shared.frames]
        return own + [array for group in shared.observation.values() for array in group.values()]

    for number, array in enumerate(arrays(ours)):
        array[:] = number
    for number, array in enumerate(arrays(theirs)):
        assert (array == np.array(number).astype(array.dtype)).all()
    assert ours.frames.shape == (3, VIDEO_SIZE, 2 * VIDEO_SIZE, 3)


def test_the_observation_is_that_of_the_contract():
    shared = SharedArrays(2, TASK, 16)
    spec = contract.observation_spec(TASK, 16)
    assert list(shared.observation) == list(spec)
    for group, arrays in spec.items():
        assert list(shared.observation[group]) == list(arrays)
        for key, (shape, dtype) in arrays.items():
            array = shared.observation[group][key]
            assert (array.shape, array.dtype) == ((2, *shape), dtype)
