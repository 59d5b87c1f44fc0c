"""Compares the environment of a job with the one in which the data of a training was recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.ground.errors import Problem

ALLOW = "or pass --allow-mismatch: the run is tagged with it and cannot be promoted"
ENVIRONMENT_KEYS = ("task", "renderer", "image_size")
"""Properties that the environments of the training data and of the job must share, besides the simulator."""

_CURES = {
    "task": "pass --task {}",
    "renderer": "pass --renderer {}",
    "image_size": "pass --overrides env.image_size={}",
}


def environment_mismatches(
    bundle: Bundle, images: Mapping[str, Sequence[int]], config: JobConfig, built: Mapping[str, Any] | None
) -> Iterator[Problem]:
    """Every difference between the environments of a training and of a job.

    Args:
        bundle: what was trained.
        images: view -> height and width of the images that it was trained with, as far as they are recorded: of data
            that does not come from a simulator of this project.
        config: the config of the job.
        built: identity of the job's environment (`EnvIdentity` as a dict), if it is built already. Otherwise only what
            `config` decides is compared.
    """
    yield from _images(bundle, images, config, built)
    yield from _environment(bundle, config, built)


def _images(
    bundle: Bundle, images: Mapping[str, Sequence[int]], config: JobConfig, built: Mapping[str, Any] | None
) -> Iterator[Problem]:
    """What another task's environment draws is known when it is built."""
    if config.task and built is None:
        return
    square = config.env.image_size if built is None else built["image_size"]
    drawn = (built or {}).get("image_shapes", {})
    for view, (height, width) in images.items():
        now_height, now_width = drawn.get(view, (square, square))
        if (height, width) != (now_height, now_width):
            cause = (
                f"{bundle.path} was trained with {view} images of {width} x {height} pixels (its config.json), the"
                f" environment renders {now_width} x {now_height}"
            )
            if config.task:
                cure = "let the environment draw images of that size (env.options of the task)"
            elif height == width:
                cure = f"set env.image_size={width}"
            else:
                cure = "train on square images: others are padded with black"
            yield Problem("image-size-mismatch", cause, f"{cure}, {ALLOW}")


def _environment(bundle: Bundle, config: JobConfig, built: Mapping[str, Any] | None) -> Iterator[Problem]:
    trained = bundle.config.get("env") or {}
    planned: dict[str, Any] = {"backend": config.env.backend, "task": task_of(config).name}
    if not config.task:
        planned |= {"image_size": config.env.image_size}
    now = planned if built is None else built
    simulators = [str(identity.get("backend", "")).partition("-")[0] for identity in (trained, now)]
    if all(simulators) and simulators[0] != simulators[1]:
        cause = f"{bundle.path} was trained in {simulators[0]} (its config.json), the job is in {simulators[1]}"
        yield Problem("env-mismatch", cause, f"pass --env {simulators[0]}, {ALLOW}")
    for key in ENVIRONMENT_KEYS:
        if key == "renderer" and simulators[0] != simulators[1]:
            continue  # different simulators have different renderers anyway
        if key in trained and key in now and trained[key] != now[key]:
            cause = f"{bundle.path} was trained with {key}={trained[key]!r} (its config.json), the job has {now[key]!r}"
            yield Problem("env-mismatch", cause, f"{_CURES[key].format(trained[key])}, {ALLOW}")
