"""Draws what `eval --vary` shows a policy: the same seeds as usual, and along each axis that can be seen.

    python benchmarks/robustness_picture.py docs/images/vary.png

One row each for the usual scene, light, camera and texture; in it four seeds, each with both cameras.
"""

from __future__ import annotations

import sys

import numpy as np
from matplotlib.image import imsave

from rlinf_isaac import api
from rlinf_isaac.envs import make_env
from rlinf_isaac.tasks.variation import Variation

SEEDS, SIZE = (5000, 5001, 5002, 5003), 150


def frames(axis: str | None) -> np.ndarray:
    """The first frames of all seeds side by side, (SIZE, 2 x SIZE x seeds, 3) uint8."""
    env = make_env(api.load_config("tiny"), len(SEEDS), varied=None if axis is None else Variation(axis, 1.0))
    try:
        env.reset(seed=list(SEEDS))
        return np.concatenate([env.render_frame(row, SIZE) for row in range(len(SEEDS))], axis=1)
    finally:
        env.close()


if __name__ == "__main__":
    imsave(sys.argv[1], np.concatenate([frames(axis) for axis in (None, "light", "camera", "texture")]))
