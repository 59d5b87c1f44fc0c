"""Logs a checkpoint bundle to MLflow: as a LoggedModel without weights, as tags, and as artifacts of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow_project.lineage.provenance import digest_tags
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import ASSUMED_TAG, HUB_TAG, MODEL_TAG, NOT_KNOWN_TAG, URI_TAG
from rlinf_isaac.checkpoint import facts
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.facts import spell
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE
from rlinf_isaac.ground.hub import uri_of

UploadWeights = Literal["auto", "all", "none"]
SMALL_BYTES = 64 << 20
"""With ``auto``, weights up to this size are uploaded."""


def model_name(preset: str, *, pi05: bool) -> str:
    """Architecture and preset, e.g. ``pi0-tiny``; the preset alone if its name begins with the architecture."""
    family = "pi05" if pi05 else "pi0"
    preset = Path(preset).stem
    return preset if preset.startswith(family) else f"{family}-{preset}"


def fine_tuning_words(trainable: str, base: str | None) -> str:
    """Suffix of the names of a fine-tuning's runs, e.g. `` (lora from models/pi0_base)``; empty for a full training
    from random weights.

    Args:
        trainable: ``sft.trainable``.
        base: name of the base; None for random weights.
    """
    words = [trainable] * (trainable != "all") + ([] if base is None else [f"from {base}"])
    return f" ({' '.join(words)})" if words else ""


def bundle_tags(bundle: Bundle) -> dict[str, str]:
    """Tags with the digest and location of a bundle, and with the digests of its inputs; of one that came from the
    Hugging Face Hub, with its URI and commit."""
    lineage = digest_tags(bundle.lineage) | digest_tags({"weights": bundle.weights_digest})
    hub = {HUB_TAG: uri} if (uri := uri_of(bundle.path)) else {}
    return lineage | {MODEL_TAG: bundle.digest, URI_TAG: str(bundle.path.absolute())} | hub


def training_tags(assumed: Mapping[str, Any], unsaid: Sequence[str]) -> dict[str, str]:
    """Tags ``assumed.<fact>`` for facts about the training that a person assumed, and ``not_known`` for missing ones
    (see `facts`)."""
    tags = {f"{ASSUMED_TAG}{fact}": spell(value) for fact, value in assumed.items()}
    return tags | ({NOT_KNOWN_TAG: ", ".join(unsaid)} if unsaid else {})


def log_model(
    recorder: Recorder, bundle: Bundle, name: str, role: Literal["input", "output"], checkpoint: str | None = None
) -> None:
    """Log the bundle as LoggedModel: output of a training run or input of an evaluation.

    Args:
        name: what comes before the checkpoint's name in that of the model (`model_name`).
        checkpoint: the checkpoint's name; by default `Bundle.name`.
    """
    params = {"step": bundle.step, "parameters": bundle.manifest.parameters, "dtypes": dict(bundle.manifest.dtypes)}
    tags = bundle_tags(bundle) | training_tags(facts.assumed(bundle), facts.unsaid(bundle))
    recorder.model(bundle.digest, f"{name}-{checkpoint or bundle.name}", role, bundle.step, params=params, tags=tags)


def uploads_weights(size: int, upload_weights: UploadWeights) -> bool:
    """Whether weights of `size` bytes are uploaded as artifacts."""
    return upload_weights == "all" or (upload_weights == "auto" and size <= SMALL_BYTES)


def log_bundle_files(
    recorder: Recorder, bundle: Bundle, target: str, upload_weights: UploadWeights, *, made: bool = True
) -> None:
    """Log the bundle's files below `target`: always the manifest, config and norm stats; the weights as decided by
    `upload_weights`. Where the run has not `made` the bundle, weights that its maker has are not logged again."""
    files = bundle.manifest.files
    weights = {name for name in files if name.endswith(".safetensors")}
    with_weights = uploads_weights(sum(files[name].size for name in weights), upload_weights)
    for name in (MANIFEST_FILE, *sorted(files)):
        if name not in weights:
            recorder.artifact(bundle.path / name, f"{target}/{name}")
        elif with_weights:
            recorder.artifact(bundle.path / name, f"{target}/{name}", weights_of=None if made else bundle.digest)
