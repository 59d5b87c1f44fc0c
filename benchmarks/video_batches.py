"""What random frames of one long video file cost a training batch, in two ways that must agree bit by bit.

Old: one seek, then everything is decoded from the earliest to the latest wanted frame. New: `read_frames`. In CPU
seconds (user + system), which nearly hold on a busy machine; both decode in one thread.

    python benchmarks/video_batches.py [--frames 6000] [--batch 32] [--size 320x240] [--gop 2,20,250] [--codec libx264]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import av
import click
import numpy as np

from rlinf_isaac.data.lerobot.video_frames import read_frames

FPS = 20


@click.command()
@click.option("--frames", default=6000)
@click.option("--batch", default=32)
@click.option("--batches", default=3)
@click.option("--size", default="320x240")
@click.option("--gop", default="2,20,250", help="Frames between keyframes; LeRobot writes 2.")
@click.option("--codec", default="libx264")
def main(frames: int, batch: int, batches: int, size: str, gop: str, codec: str) -> None:
    """Print the median CPU seconds of a batch."""
    width, height = map(int, size.split("x"))
    wanted = [np.random.default_rng(seed).integers(0, frames, batch) / FPS for seed in range(batches + 1)]
    print(f"{batch} random frames of {frames}, {size}, {codec}; median of {batches} batches after the first")
    print(f"{'keyframe every':>14} {'file':>9} {'one seek, decode on':>20} {'read_frames':>12}")
    for distance in map(int, gop.split(",")):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "video.mp4"
            write(path, frames, width, height, distance, codec)
            old, new = [], []
            for times in wanted:
                begun = time.process_time()
                expected = decode_on(path, times)
                middle = time.process_time()
                found = read_frames(path, times, 0.5 / FPS)
                old.append(middle - begun)
                new.append(time.process_time() - middle)
                assert np.array_equal(found, expected)
            old_s, new_s = (float(np.median(each[1:])) for each in (old, new))
            kib = path.stat().st_size >> 10
        print(f"{distance:14} {kib:5} KiB {old_s:18.3f} s {new_s:10.3f} s", flush=True)


def write(path: Path, frames: int, width: int, height: int, gop: int, codec: str) -> None:
    """A bright square that moves over a coarse pattern."""
    coarse = np.random.default_rng(0).integers(0, 120, (height // 20 + 1, width // 20 + 1, 3), np.uint8)
    background = coarse.repeat(20, axis=0).repeat(20, axis=1)[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=FPS, options={"g": str(gop), "preset": "8" if "av1" in codec else "fast"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            image = background.copy()
            x, y = 3 * index % (width - 32), 2 * index % (height - 32)
            image[y : y + 32, x : x + 32] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def decode_on(path: Path, times: np.ndarray) -> np.ndarray:
    """What `read_frames` did before: one seek, and all frames from the earliest to the latest are decoded."""
    order = np.argsort(times, kind="stable")
    wanted, tolerance, chosen = times[order], 0.5 / FPS, []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        stream.codec_context.thread_count = 1
        container.seek(max(0, int((wanted[0] - tolerance) / stream.time_base)), stream=stream, backward=True)
        for frame in container.decode(stream):
            while len(chosen) < len(wanted) and abs(frame.time - wanted[len(chosen)]) <= tolerance:
                chosen.append(frame.to_ndarray(format="rgb24"))
            if len(chosen) == len(wanted):
                break
    return np.stack(chosen)[np.argsort(order, kind="stable")]


if __name__ == "__main__":
    main()
