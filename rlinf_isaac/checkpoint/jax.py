"""OpenPI's JAX checkpoints, which orbax wrote: how to recognise one, and where its parts are. No tensorstore, no torch.

    pi05_base/params/{_METADATA, manifest.ocdbt, d/, ocdbt.process_0/, ...}, assets/{trossen,droid,...}/norm_stats.json
    <experiment>/<step>/{params, train_state, assets}                        of a training

``params`` holds what is to be run: the average, where the training kept one.
"""

from __future__ import annotations

from pathlib import Path

from rlinf_isaac.ground.errors import BundleError

METADATA = "_METADATA"
"""orbax's JSON of what is stored: the one file that each of its checkpoints has."""
PARAMS = "params"
_ORBAX = (METADATA, "manifest.ocdbt")
_ROOT = "_CHECKPOINT_METADATA"
_AGAIN = "copy the checkpoint again, complete: params/ with all that is in it, and assets/"


def is_jax(directory: Path) -> bool:
    """Whether a directory is such a checkpoint, or its ``params``, whole or not."""
    return is_params(directory) or (directory / PARAMS).is_dir() or (directory / _ROOT).exists()


def is_params(directory: Path) -> bool:
    """Whether a directory holds orbax's arrays itself."""
    return any((directory / name).exists() for name in _ORBAX)


def jax_files(directory: Path) -> tuple[Path, ...]:
    """The files that hold the arrays of a JAX checkpoint or of its ``params``, orbax's metadata first.

    Raises:
        BundleError: ``jax-checkpoint``, parts are missing.
    """
    params = directory if is_params(directory) else directory / PARAMS
    if not params.is_dir():
        cause = f"{directory} is orbax's, but has no {PARAMS}/, where OpenPI keeps a model's weights"
        raise BundleError.of("jax-checkpoint", cause, f"name the directory that has it; or {_AGAIN}")
    if not (params / METADATA).is_file():
        content = "is empty" if not any(params.iterdir()) else f"lacks {METADATA}"
        raise BundleError.of("jax-checkpoint", f"{params} {content}: it is no whole checkpoint of orbax", _AGAIN)
    files = sorted(each for each in params.rglob("*") if not each.is_dir())
    if special := next((each for each in files if not each.is_file()), None):
        raise BundleError.of("jax-checkpoint", f"{special} is no regular file", _AGAIN)
    return (params / METADATA, *(each for each in files if each != params / METADATA))
