"""Logs a verified bundle as an MLflow pyfunc model, which `promote` registers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_project.recorders.logged_checkpoints import bundle_tags, model_name
from mlflow_project.serving.observation import ObservationSpec, Request, as_array
from mlflow_project.serving.policy import observation_spec, serving_config
from mlflow_project.serving.resolve import ARTIFACT
from rlinf_isaac import __version__
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.facts import assumed_since
from rlinf_isaac.checkpoint.of_task import first_if_needed, playable
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.norm_stats import NormStats, from_json
from rlinf_isaac.ground.errors import ObservationError

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo


def inputs_of(spec: ObservationSpec) -> tuple[str, ...]:
    """Names of the model's inputs, as in the policy server: the images, then state and prompt. Each input has a leading
    axis of N observations. The parameter ``noise_key`` determines the noise: three integers (`observation.NoiseKey`),
    or three for each observation."""
    return (*images_of(spec), spec.spellings["state"][0], "prompt")


def images_of(spec: ObservationSpec) -> tuple[str, ...]:
    """Names of the images among the model's inputs."""
    return tuple(spec.spellings[slot][0] for slot in spec.cameras)


def log_policy_model(bundle: Bundle, *, model_id: str | None = None) -> ModelInfo:
    """Log a bundle as a pyfunc model to mlflow's current tracking URI, in the active run if there is one.

    The bundle is stored as an artifact of the model and verified whenever the model is loaded. MLflow first copies it
    to the temporary directory. The code is not stored; this package is a requirement of the model.

    Args:
        bundle: a verified bundle; assumptions about it (`facts.assume`) are stored with the model. Of several tasks
            that do not share their norm stats, the model plays the first.
        model_id: id of the existing LoggedModel of the checkpoint, which then gets the bytes and keeps its metrics and
            runs; None creates a new one.

    Returns:
        info with ``model_id`` and ``model_uri`` (``models:/m-...``, the source of a model version).
    """
    import mlflow

    if not bundle.verified:
        raise ValueError(f"{bundle.path} was read without hashing its weights")
    task = first_if_needed(bundle)
    bundle = playable(bundle, task)
    config = serving_config(bundle)
    spec = observation_spec(bundle, config)
    return mlflow.pyfunc.log_model(
        name=f"{model_name(config.preset, pi05=config.model.pi05)}-{bundle.name}",
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={ARTIFACT: str(bundle.path.absolute())},
        signature=signature(config, spec),
        input_example=input_example(config, spec, from_json(bundle.norm_stats_bytes, str(bundle.path))),
        pip_requirements=[f"rlinf-isaac=={__version__}"],
        model_config={
            "checkpoint": bundle.digest,
            "device": "cpu",
            "any_prompt": False,
            "assumed": dict(assumed_since(bundle)),
            **({"task": task} if task else {}),
        },
        tags=bundle_tags(bundle),
        step=bundle.step,
        model_id=model_id,
    )


def signature(config: JobConfig, spec: ObservationSpec) -> ModelSignature:
    """Signature of the model: images of any size, state and prompt -> action chunk.

    Images are declared as objects, which MLflow does not convert. It would cast JSON numbers to any other declared
    dtype, and floats in [0, 1] would become black as uint8.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    *images, state, prompt = inputs_of(spec)
    inputs: list[ColSpec | TensorSpec] = [
        *(TensorSpec(np.dtype(object), (-1,), image) for image in images),
        TensorSpec(np.dtype(np.float32), (-1, len(spec.state_names)), state),
        TensorSpec(np.dtype(str), (-1,), prompt),
    ]
    actions = TensorSpec(np.dtype(np.float32), (-1, config.policy.action_chunk, config.policy.env_action_dim))
    return ModelSignature(
        Schema(inputs), Schema([actions]), ParamSchema([ParamSpec("noise_key", "long", [0, 0, 0], (-1,))])
    )


def input_example(config: JobConfig, spec: ObservationSpec, stats: NormStats) -> dict[str, np.ndarray]:
    """One observation with grey images, the mean state of the training, and a prompt of the training."""
    grey = np.full((1, config.env.image_size, config.env.image_size, 3), 128, np.uint8)
    *images, state, prompt = inputs_of(spec)
    # An adapted robot's norm stats are in the model's numbers.
    mean = np.zeros(len(spec.state_names)) if task_of(config).adapt else stats.state.mean
    numbers = {state: np.asarray(mean, np.float32)[None], prompt: np.array(spec.prompts[:1])}
    return {**dict.fromkeys(images, grey), **numbers}


def read_requests(inputs: Mapping[str, Any], params: Mapping[str, Any] | None, spec: ObservationSpec) -> list[Request]:
    """Split a batch of observations into requests.

    Args:
        inputs: name -> numpy array with a leading axis of observations; images may also be lists of integers from 0 to
            255, or of floats in [0, 1], as from JSON.
        params: parameters of the call, with ``noise_key``.
        spec: observations that the policy accepts.

    Raises:
        ObservationError: the policy does not accept an observation, the inputs have different numbers of observations,
            or ``noise_key`` does not fit this number.
    """
    counts = {name: len(values) if np.ndim(values) else None for name, values in inputs.items()}
    if len(set(counts.values())) > 1 or None in counts.values():
        cause = "the inputs have different numbers of observations: "
        cause += ", ".join(f"{'no list' if count is None else count} of {name}" for name, count in counts.items())
        raise ObservationError.of("observation-rows", cause, "send one value of each input for each observation")
    rows = next(iter(counts.values()), None) or 0
    keys = np.reshape((params or {}).get("noise_key", (0, 0, 0)), -1).tolist()
    if len(keys) not in (3, 3 * rows):
        cause = f"noise_key has {len(keys)} entries for {rows} observations"
        raise ObservationError.of("observation-noise-key", cause, "send three integers, or three for each observation")
    return [
        spec.parse(_row(inputs, row, images_of(spec)) | {"noise_key": keys[k : k + 3]}, (0, 0, 0))
        for row, k in ((row, 3 * row if len(keys) > 3 else 0) for row in range(rows))
    ]


def requests_of(inputs: Mapping[str, Any], params: Mapping[str, Any] | None, spec: ObservationSpec) -> list[Request]:
    """Like `read_requests`, for models of earlier releases, whose stored code calls this name; their signature has
    images of uint8.

    Raises:
        ObservationError: as `read_requests`, and for an image without a value above 1, because MLflow casts floats in
            [0, 1] to such an image.
    """
    for name in images_of(spec):
        image = inputs.get(name)
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size and image.max() <= 1:
            cause = f"{name} has no value above 1: it is black, or MLflow has cast floats in [0, 1] to integers"
            raise ObservationError.of("observation-image", cause, "send integers from 0 to 255")
    return read_requests(inputs, params, spec)


def _row(inputs: Mapping[str, Any], row: int, images: tuple[str, ...]) -> dict[str, Any]:
    return {name: _pixels(name, values[row]) if name in images else values[row] for name, values in inputs.items()}


def _pixels(name: str, image: Any) -> Any:
    """An image for `ObservationSpec.parse`. Integers from JSON, which has no dtypes, become uint8."""
    if isinstance(image, np.ndarray) and image.dtype != object:
        return image
    values = as_array(image.tolist() if isinstance(image, np.ndarray) else image)
    if values.dtype.kind not in "iu" or not values.size or values.min() < 0 or values.max() > 255:
        return values
    if values.max() == 1:
        cause = f"{name} has only the integers 0 and 1, so it is unclear whether 1 means white (float) or black (uint8)"
        raise ObservationError.of("observation-image", cause, "send integers from 0 to 255, or floats in [0, 1]")
    return values.astype(np.uint8)
