"""The environment against a dataset: what a policy learns from must look like what it is played with."""

from __future__ import annotations

import numpy as np
from PIL import Image

from rlinf_isaac.envs.conformance.bench import ROWS, SEED, Bench, Look, reset
from rlinf_isaac.envs.vector import PolicyInput
from rlinf_isaac.ground.errors import Problem

STARTS = 8
NEARER = 0.7
"""A turned image is the right one if it is nearer to the dataset's than this share of the distance as it is."""
DISTINCT = 3.0
"""Mean difference per pixel and channel (of 255) below which two images count as the same."""
DIFFERENT = 40.0
"""Mean difference above which they show something else."""
WIDER = 1.0
"""How far beside a dataset's first states, in units of their range, the environment's may begin."""


def first_frames(bench: Bench) -> Look:
    """The first images of episodes look like the dataset's: the same way up, with the same order of the channels.

    A policy that was trained on upright RGB sees something else in an image that is flipped or BGR, and nothing tells:
    shapes and dtypes are the same. Means over several starts are compared, so that objects may lie elsewhere.
    """
    recording = bench.recording
    if recording is None:
        return Look("no --dataset was given", skipped=True)
    starts = _starts(bench)
    problems, seen = [], []
    for slot, camera in bench.task.cameras.items():
        ours = np.mean([each.images[slot] for each in starts], axis=(0, 1))
        size, recorded_size = (images.shape[-3:-1] for images in (starts[0].images[slot], recording.first_images[slot]))
        if size != recorded_size:
            cause = f"{slot}: the environment draws {_by(size)} pixels, {recording.name} has {_by(recorded_size)}"
            cure = "draw the size that the policy learns from; the model scales both to its own"
            problems.append(Problem("env-image-size", cause, cure, "warning"))
        theirs = _resized(recording.first_images[slot].mean(axis=0), ours.shape[1], ours.shape[0])
        distances = {name: float(np.abs(turned - theirs).mean()) for name, turned in _turned(ours).items()}
        as_it_is, best = distances["as it is"], min(distances, key=distances.__getitem__)
        seen.append(f"{slot} differs by {as_it_is:.0f} of 255")
        if as_it_is < DISTINCT:
            continue
        if distances[best] < NEARER * as_it_is:
            cause = (
                f"{slot}: the image of {camera.env} differs from {camera.dataset} of {recording.name} by "
                f"{as_it_is:.0f} of 255, and {best} by {distances[best]:.0f}"
            )
            if "BGR" in best:
                cure = "give the channels in the order in which the dataset has them, red, green, blue"
                problems.append(Problem("env-channel-order", cause, cure))
            if best not in ("as it is", "as BGR"):
                cure = "turn the image in the environment's wrapper as the dataset has it"
                problems.append(Problem("env-image-flipped", cause, cure))
        elif as_it_is > DIFFERENT:
            cause = (
                f"{slot}: the image of {camera.env} differs from {camera.dataset} of {recording.name} by "
                f"{as_it_is:.0f} of 255; means {ours.mean():.0f} and {theirs.mean():.0f}"
            )
            cure = "look at both; is it the same camera, place and light?"
            problems.append(Problem("env-image-differs", cause, cure, "warning"))
    return Look(", ".join(seen) or "the task has no camera", tuple(problems))


def first_states(bench: Bench) -> Look:
    """Episodes begin with states that the dataset's episodes begin with, too.

    Degrees for radians, or another order of the joints, show here before a policy has learned them.
    """
    recording = bench.recording
    if recording is None:
        return Look("no --dataset was given", skipped=True)
    ours = np.concatenate([each.states for each in _starts(bench)])
    low, high = recording.first_states.min(axis=0), recording.first_states.max(axis=0)
    margin = WIDER * (high - low) + 1e-2 * np.maximum(np.abs(low), np.abs(high)) + 1e-3
    middle = np.median(ours, axis=0)
    outside = np.flatnonzero((middle < low - margin) | (middle > high + margin))
    seen = f"{len(ours)} starts, {len(recording.first_states)} of the dataset"
    if not outside.size:
        return Look(seen)
    names = ", ".join(bench.task.state.labels[dim] for dim in outside[:6])
    dim = int(outside[0])
    cause = (
        f"the state begins elsewhere than in {recording.name}: {names}; {bench.task.state.labels[dim]} at "
        f"{middle[dim]:g}, there between {low[dim]:g} and {high[dim]:g}"
    )
    cure = "compare units, signs and order of state.env with the dataset's; if the starts differ on purpose, go on"
    return Look(seen, (Problem("env-state-differs", cause, cure, "warning"),))


def _starts(bench: Bench) -> list[PolicyInput]:
    """What the policy sees at the start of some episodes."""
    return [bench.seen(reset(bench.env, [seed, seed + 1])) for seed in range(SEED, SEED + STARTS, ROWS)]


def _turned(image: np.ndarray) -> dict[str, np.ndarray]:
    """An image (h, w, 3) in all the ways in which it may be meant."""
    ways = {
        "as it is": image,
        "upside down": image[::-1],
        "mirrored": image[:, ::-1],
        "turned by 180 degrees": image[::-1, ::-1],
    }
    swapped = {name: each[..., ::-1] for name, each in ways.items()}
    return ways | {"as BGR": swapped.pop("as it is")} | {f"{name} and as BGR": each for name, each in swapped.items()}


def _by(size: tuple[int, ...]) -> str:
    return f"{size[1]} x {size[0]}"


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mean image (h, w, 3) in another size, as float."""
    return np.asarray(Image.fromarray(image.round().astype(np.uint8)).resize((width, height)), np.float64)
