"""LeRobot datasets on the Hugging Face Hub: ``--dataset hf://lerobot/pusht``, and never without those words.

A revision is downloaded whole into the cache of huggingface_hub, where each commit has a directory of its own: a
dataset that is trained on does not change when its repository does. The commit can be told from the directory's path
(`rlinf_isaac.ground.hub.uri_of`), and goes into the provenance of what is trained on it.
"""

from __future__ import annotations

from pathlib import Path

from rlinf_isaac.data.lerobot.resolve import INFO_FILE
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.ground.hub import download, parse

# What LeRobot's formats v2.1 and v3.0 consist of. A repository may hold other things as well, such as a viewer's.
_KEPT = ("meta/*", "data/*", "videos/*", "images/*")


def fetch_dataset(uri: str) -> Path:
    """The root of a dataset of the hub, which is downloaded unless the cache has this revision.

    Raises:
        DatasetError: as `rlinf_isaac.ground.hub.download`; the URI is not valid (``hub-uri``), or what it names is no
            LeRobot dataset (``hub-no-dataset``).
    """
    location = parse(uri, "dataset")
    snapshot, commit = download(location, "dataset", _KEPT)
    root = snapshot / location.folder
    if not (root / INFO_FILE).is_file():
        where = f"{location.folder}/ of " if location.folder else ""
        cause = f"{where}{location.repo} at {commit[:12]} has no {INFO_FILE.as_posix()}: it is no LeRobot dataset"
        raise DatasetError.of("hub-no-dataset", cause, "name a LeRobot dataset, and the folder in it that holds meta/")
    return root
