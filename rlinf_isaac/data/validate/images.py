"""Checks camera images and videos of a dataset against their features: a sample of them, or all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from rlinf_isaac.data.lerobot.files import RESTORE, open_parquet, parquet_errors
from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings
from rlinf_isaac.data.lerobot.format import Feature
from rlinf_isaac.data.lerobot.meta import RecordedEpisode
from rlinf_isaac.data.validate.columns import DataFile
from rlinf_isaac.data.validate.schema import holds_images
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.media.png import decode_image

SAMPLED_FRAMES = 32  # frames per camera, evenly spaced; of a small dataset these are all
SAMPLED_VIDEOS = 8  # videos per camera, of which the first and the last frame are decoded
SAMPLED_BYTES = 256 << 20  # bytes of row groups: parquet reads whole groups, and those of lerobot v3.0 are large


def check_images(
    root: Path, files: Sequence[DataFile], features: Mapping[str, Feature], full: bool, findings: FoldedFindings
) -> None:
    """Decode the images that are stored in the parquet files."""
    cameras = {name: feature for name, feature in features.items() if feature.dtype == "image"}
    total = sum(file.footer.num_rows for file in files)
    if not cameras or not total:
        return
    sampled = np.arange(total) if full else np.unique(np.linspace(0, total - 1, SAMPLED_FRAMES).astype(np.int64))
    start, read_bytes = 0, 0
    for file in files:
        first_row = 0
        for group in range(file.footer.num_row_groups):
            rows = file.footer.row_group(group).num_rows
            low, high = np.searchsorted(sampled, [start, start + rows])
            if low < high and (full or read_bytes <= SAMPLED_BYTES):
                read_bytes += file.footer.row_group(group).total_byte_size
                for name, feature in cameras.items():
                    _check_group(root, file, group, name, feature, sampled[low:high] - start, first_row, findings)
            first_row, start = first_row + rows, start + rows


def _check_group(
    root: Path,
    file: DataFile,
    group: int,
    name: str,
    feature: Feature,
    rows: np.ndarray,
    first_row: int,
    findings: FoldedFindings,
) -> None:
    """Decode the images of the camera `name` in `rows` of one row group, which begins at `first_row` of its file."""
    path = root / file.name
    try:
        with parquet_errors(path):
            parquet = open_parquet(path, file.footer)
            table = parquet.read_row_group(group, columns=[name])
            if name not in table.column_names or not holds_images(table[name].type):
                return  # `SchemaChecks` reports that
            images = table[name].combine_chunks().field("bytes")
            if len(images) <= rows.max():
                raise pa.ArrowInvalid(f"row group {group} has {len(images)} images of {name}")
    except DatasetError as error:
        findings.extend(error.problems)
        return
    for row in rows.tolist():
        place = f"{path}: {name} of row {first_row + row}"
        data = images[row].as_py()
        if data is None:
            cure = "write the images' bytes into the parquet files"
            findings.add("image-by-path", f"{place} is a path or null, not bytes", cure)
            continue
        try:
            shape = decode_image(data).shape
        except DatasetError as error:
            (problem,) = error.problems
            findings.add(problem.code, f"{place}: {problem.cause}", problem.cure)
            continue
        _check_shape(place, shape, feature, findings)


def check_videos(
    root: Path,
    episodes: Sequence[RecordedEpisode],
    features: Mapping[str, Feature],
    fps: int,
    full: bool,
    findings: FoldedFindings,
) -> None:
    """Check that every video exists, and decode some frames of some of them, or all frames."""
    cameras = {name: feature for name, feature in features.items() if feature.dtype == "video"}
    for name, feature in cameras.items():
        spans: dict[str, list[tuple[float, int]]] = {}  # file -> start (s) and frames of each episode in it
        for episode in episodes:
            file, start = episode.videos[name]
            spans.setdefault(file, []).append((start, episode.length))
        for file in [file for file in spans if not (root / file).is_file()]:
            findings.add("video-missing", f"{root / file} is missing, but meta/ lists it", RESTORE)
            del spans[file]
        checked = list(spans)
        if not full and len(checked) > SAMPLED_VIDEOS:
            checked = [checked[n] for n in np.linspace(0, len(checked) - 1, SAMPLED_VIDEOS).astype(int)]
        for file in checked:
            _check_video(root / file, spans[file], feature, fps, full, findings)


def _check_video(
    path: Path, spans: Sequence[tuple[float, int]], feature: Feature, fps: int, full: bool, findings: FoldedFindings
) -> None:
    from rlinf_isaac.data.lerobot.video_frames import probe_video, read_frames  # PyAV is an extra

    try:
        probe = probe_video(path, count=full)
        if abs(probe.fps - fps) > 0.01 * fps:
            cause = f"{path} plays at {probe.fps:g} frames per second, but meta/info.json says {fps}"
            findings.add("video-fps", cause, "encode the video at the fps of the dataset")
            return  # with a wrong rate, the frames are not at the expected times
        frames = sum(length for _, length in spans)
        if probe.frames > frames:
            cause = f"{path} holds {probe.frames} frames, but meta/ lists {frames}"
            findings.add("video-length", cause, "check that video and episodes belong together", "warning")
        ends = [time for start, length in spans for time in (start, start + (length - 1) / fps)]
        shape = read_frames(path, np.array([min(ends), max(ends)]), tolerance_s=0.5 / fps).shape[1:]
        _check_shape(str(path), shape, feature, findings)
        if full and probe.frames < frames:
            cause = f"{path} holds {probe.frames} frames, but meta/ lists {frames}"
            findings.add("video-short", cause, "restore the video from where the dataset was copied or recorded")
    except DatasetError as error:
        findings.extend(error.problems)


def _check_shape(place: str, shape: tuple[int, ...], feature: Feature, findings: FoldedFindings) -> None:
    """Compare a decoded shape (height, width, 3) with the feature's, which in some datasets is (3, height, width)."""
    expected = feature.shape
    if len(expected) == 3 and expected[0] == 3 != expected[2]:
        expected = (*expected[1:], 3)
    if shape != expected:
        cause = f"{place} is {shape[0]} x {shape[1]} pixels, but the feature's shape is {list(feature.shape)}"
        findings.add("image-size", cause, "correct meta/info.json, or resize the images")
