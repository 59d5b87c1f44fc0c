"""Names that clients may give the entries of an observation, which follow from the task."""

from __future__ import annotations

from collections.abc import Mapping

WRISTS = ("left_wrist_0_rgb", "right_wrist_0_rgb")
IMAGE, WRIST_IMAGE = "observation/image", "observation/wrist_image"
"""Names of OpenPI's LIBERO policy."""


def spellings(cameras: Mapping[str, str], state: str) -> dict[str, tuple[str, ...]]:
    """Name of an entry of an observation -> the names that clients may use for it; a ``/`` may also be a nested dict.

    A camera has the names of OpenPI's LIBERO policy, ``observation/image`` and, where one hand has a camera,
    ``observation/wrist_image``; those of OpenPI's ALOHA and DROID policies, ``images/cam_high`` and
    ``observation/exterior_image_1_left``, with the last part of the dataset's feature; the feature; and the model's
    slot. A name that means two cameras of this task is no name of either.

    Args:
        cameras: slot of the model -> feature of the dataset.
        state: feature of the dataset.
    """
    claims = {slot: _names(slot, feature, cameras) for slot, feature in cameras.items()}
    owners: dict[str, list[str]] = {}
    for rank in range(3):  # what names a camera more closely goes first
        claimed: dict[str, list[str]] = {}
        for slot, names in claims.items():
            for name in (name for name, its_rank in names.items() if its_rank == rank and name not in owners):
                claimed.setdefault(name, []).append(slot)
        owners |= claimed
    images = {slot: tuple(name for name in names if owners[name] == [slot]) for slot, names in claims.items()}
    states: tuple[str, ...] = ("observation/state", "state", "observation.state", state)
    # What messages propose is in one style for all cameras: LIBERO's if that has a name for each, otherwise ALOHA's.
    if any(names[0] not in (IMAGE, WRIST_IMAGE) for names in images.values()):
        images = {slot: tuple(sorted(names, key=(IMAGE, WRIST_IMAGE).__contains__)) for slot, names in images.items()}
        states = ("state", *states)
    others = {"state": tuple(dict.fromkeys(states)), "prompt": ("prompt",), "noise_key": ("noise_key",)}
    return images | others


def _names(slot: str, feature: str, cameras: Mapping[str, str]) -> dict[str, int]:
    """Name -> how closely it names this camera, 0 most."""
    last = feature.rpartition(".")[2]
    ranked = [(f"images/{last}", 1), (feature, 0), (f"observation/{last}", 1), (f"images/{slot}", 0), (slot, 0)]
    if slot not in WRISTS:
        ranked.insert(0, (IMAGE, 2))
    elif sum(each in cameras for each in WRISTS) == 1:
        ranked.insert(0, (WRIST_IMAGE, 2))
    return {name: min(rank for each, rank in ranked if each == name) for name, _ in ranked}
