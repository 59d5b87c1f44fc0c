"""OpenPI's JAX checkpoints, written by orbax: how to recognise one, and where its parts are.

    pi05_base/params/{_METADATA, manifest.ocdbt, d/, ocdbt.process_0/, ...}, assets/{trossen,droid,...}/norm_stats.json
    <experiment>/<step>/{params, train_state, assets}                        of a training

``params`` holds the weights for inference: the moving average if the training kept one. This module needs neither
tensorstore nor torch.
"""

from __future__ import annotations

from pathlib import Path

from rlinf_isaac.ground.errors import BundleError

METADATA = "_METADATA"
"""orbax's JSON list of the stored arrays, which every orbax checkpoint has."""
PARAMS = "params"
_ORBAX = (METADATA, "manifest.ocdbt")
_ROOT = "_CHECKPOINT_METADATA"
_AGAIN = "copy the checkpoint again, complete: params/ with all that is in it, and assets/"


def is_jax(directory: Path) -> bool:
    """Whether a directory is a JAX checkpoint or its ``params``. Files may be missing from it."""
    return is_params(directory) or (directory / PARAMS).is_dir() or (directory / _ROOT).exists()


def is_params(directory: Path) -> bool:
    """Whether a directory holds orbax's arrays directly, as ``params`` does."""
    return any((directory / name).exists() for name in _ORBAX)


def jax_files(directory: Path) -> tuple[Path, ...]:
    """The files that hold the arrays of a JAX checkpoint or of its ``params``, orbax's metadata first.

    Raises:
        BundleError: ``jax-checkpoint``, parts are missing.
    """
    params = directory if is_params(directory) else directory / PARAMS
    if not params.is_dir():
        cause = f"{directory} was written by orbax, but has no {PARAMS}/, where OpenPI keeps a model's weights"
        raise BundleError.of("jax-checkpoint", cause, f"name the directory that has it; or {_AGAIN}")
    if not (params / METADATA).is_file():
        content = "is empty" if not any(params.iterdir()) else f"lacks {METADATA}"
        raise BundleError.of("jax-checkpoint", f"{params} {content}: it is not a complete orbax checkpoint", _AGAIN)
    files = sorted(file for file in params.rglob("*") if not file.is_dir())
    if special := next((file for file in files if not file.is_file()), None):
        raise BundleError.of("jax-checkpoint", f"{special} is not a regular file", _AGAIN)
    return (params / METADATA, *(file for file in files if file != params / METADATA))
