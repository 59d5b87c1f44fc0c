"""How a scene differs from the usual one in an episode of a robustness axis. numpy only.

What is drawn is a function of the axis and of the episode's seed alone: every checkpoint meets the same variation, and
so does whoever plays the episode again. The generator is not that of the reset (`randomisation`), so the cubes and the
arm start where they do in the episode of this seed that is not varied.

All ranges are those of strength 1. A strength multiplies the shifts and angles, and is the exponent of the factors of
mass and friction. Who changes a range or a draw raises `tasks.variation.VERSION`.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np

from rlinf_isaac.tasks.variation import Variation

LIGHT_INTENSITY = 0.5  # the share by which every light grows brighter or darker at most
LIGHT_TILT = 35.0  # degrees by which the key light's direction turns at most
CAMERA_SHIFT = 0.05  # metres, along each axis of the world
CAMERA_TURN = 5.0  # degrees, about any axis
CAMERA_ZOOM = 0.1  # the share by which the field of view grows or shrinks
SURFACE_COLOUR = 0.25  # of a colour channel in [0, 1]: table, mat and floor
CUBE_SHADE = 0.3  # the share by which a cube's colour grows lighter or darker; its hue stays
CUBE_MASS = 2.0  # factor, or divisor, of a cube's mass at most
FRICTION = 1.5  # factor, or divisor, of the friction of cubes, table and fingers at most


class Light(NamedTuple):
    """Factor of the brightness of all lights; unit axis (3,) and angle (radians) by which the key light turns."""

    intensity: float
    axis: np.ndarray
    angle: float


class Camera(NamedTuple):
    """Shift (3,) of the fixed camera in metres; unit axis (3,) and angle (radians) of its turn, in the camera's frame;
    factor of its field of view."""

    shift: np.ndarray
    axis: np.ndarray
    angle: float
    zoom: float


class Texture(NamedTuple):
    """What is added to the RGB of each surface, (surfaces, 3); factor of that of each cube, (cubes,)."""

    surfaces: np.ndarray
    shades: np.ndarray


class Mass(NamedTuple):
    """Factor of the mass and inertia of each cube, (cubes,), and of the sliding friction of all that touches them."""

    cubes: np.ndarray
    friction: float


def light(variation: Variation, seed: int) -> Light:
    """The light of an episode."""
    rng, strength = _generator(variation, seed), variation.strength
    intensity = max(0.0, 1 + strength * LIGHT_INTENSITY * rng.uniform(-1, 1))
    azimuth, angle = rng.uniform(0, 2 * np.pi), np.radians(strength * LIGHT_TILT) * rng.uniform(-1, 1)
    return Light(intensity, np.array([np.cos(azimuth), np.sin(azimuth), 0.0]), float(angle))


def camera(variation: Variation, seed: int) -> Camera:
    """The pose of the fixed camera in an episode, relative to the usual one."""
    rng, strength = _generator(variation, seed), variation.strength
    shift, axis = strength * CAMERA_SHIFT * rng.uniform(-1, 1, 3), rng.normal(size=3)
    angle = np.radians(strength * CAMERA_TURN) * rng.uniform(-1, 1)
    zoom = 1 + strength * CAMERA_ZOOM * rng.uniform(-1, 1)
    return Camera(shift, axis / np.linalg.norm(axis), float(angle), float(zoom))


def texture(variation: Variation, seed: int, surfaces: int, cubes: int) -> Texture:
    """The colours of an episode, relative to the usual ones."""
    rng, strength = _generator(variation, seed), variation.strength
    added = strength * SURFACE_COLOUR * rng.uniform(-1, 1, (surfaces, 3))
    return Texture(added, np.maximum(0.0, 1 + strength * CUBE_SHADE * rng.uniform(-1, 1, cubes)))


def mass(variation: Variation, seed: int, cubes: int) -> Mass:
    """Mass and friction in an episode, relative to the usual ones; factors are uniform on a logarithmic scale."""
    rng, strength = _generator(variation, seed), variation.strength
    friction = FRICTION ** (strength * rng.uniform(-1, 1))
    return Mass(CUBE_MASS ** (strength * rng.uniform(-1, 1, cubes)), float(friction))


def _generator(variation: Variation, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(variation.axis.encode())])
