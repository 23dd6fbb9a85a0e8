"""What finishing costs beside a bare x264 encode of the very same frames.

The clip is the A14B case: 81 native frames of 1280x720 at 16 fps become 120 at 24 fps. Both sides
encode with one preset and CRF; the bare side is handed the finished I420 frames ready-made. The two
alternate, so that a busy neighbour hurts both. Run: `python bench/finishing.py [--json FILE]`.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from vidmill.domain.clip import DELIVERED_SIZES, Aspect, ClipSpec, Resolution, Size
from vidmill.domain.job import Phase
from vidmill.domain.ports import Frames
from vidmill.finishing import Encoding, finish_clip
from vidmill.media import i420
from vidmill.media.encode import h264_file
from vidmill.media.retime import retimed, schedule

TARGET_RATIO = 1.3
ROUNDS = 3
NUM_FRAMES, NATIVE_FPS, FPS, DURATION_S = 81, 16, 24, 5.0
SIZE = DELIVERED_SIZES[Resolution.P720, Aspect.WIDE]
GRAIN = 2.0
"""Standard deviation of the noise on each frame, in levels: a model's output is not clean."""


class Unwatched:
    def report(self, phase: Phase, done: int, total: int) -> None:
        pass

    def check(self) -> None:
        pass


def make_spec() -> ClipSpec:
    return ClipSpec(
        prompt="bench",
        negative_prompt="",
        profile="a14b-quality",
        resolution=Resolution.P720,
        size=SIZE,
        native=SIZE,
        duration_s=DURATION_S,
        fps=FPS,
        native_fps=NATIVE_FPS,
        num_frames=NUM_FRAMES,
        steps=1,
        guidance_scale=4.0,
        guidance_scale_2=3.0,
        flow_shift=12.0,
        seed=0,
    )


def texture(rng: np.random.Generator, size: Size, *, scales_px: tuple[int, ...]) -> Frames:
    """Return smooth colour noise with detail at each of *scales_px*, `(H, W, 3)`."""
    noise = rng.normal(size=(size.height_px, size.width_px, 3)).astype(np.float32)
    layers = sum(cv2.GaussianBlur(noise, (0, 0), scale) * scale for scale in scales_px)
    picture: Frames = np.clip(128 + 55 * layers / np.std(layers), 0, 255).astype(np.uint8)
    return picture


def make_clip(rng: np.random.Generator) -> Frames:
    """Return a panning, zooming textured clip with two discs passing over it, and grain."""
    wide = Size(SIZE.width_px * 2, SIZE.height_px * 2)
    ground = texture(rng, wide, scales_px=(2, 8, 30))
    disc = texture(rng, Size(300, 300), scales_px=(2, 6, 20))
    inside = cv2.circle(np.zeros((300, 300), np.uint8), (150, 150), 140, 255, -1, cv2.LINE_AA)
    frames = np.empty((NUM_FRAMES, SIZE.height_px, SIZE.width_px, 3), np.uint8)
    shape = (SIZE.width_px, SIZE.height_px)
    for i, frame in enumerate(frames):
        zoom = 1 + 0.002 * i
        camera = np.array([[zoom, 0, -200 - 3.0 * i], [0, zoom, -150 - 1.0 * i]])
        picture = cv2.warpAffine(ground, camera, shape, flags=cv2.INTER_LINEAR)
        for x, y, dx, dy in ((100, 200, 9.0, 1.0), (900, 120, -6.0, 3.0)):
            place = np.array([[1, 0, x + dx * i], [0, 1, y + dy * i]])
            mask = cv2.warpAffine(inside, place, shape)[..., None] / np.float32(255)
            moved = cv2.warpAffine(disc, place, shape)
            picture = picture * (1 - mask) + moved * mask
        noisy = picture + rng.normal(scale=GRAIN, size=picture.shape[:2])[..., None]
        frame[:] = np.clip(noisy, 0, 255)
    return frames


def bare(delivered: list[i420.Pixels], path: Path, encoding: Encoding) -> None:
    with h264_file(path, SIZE, fps=FPS, preset=encoding.preset, crf=encoding.crf) as write:
        for frame in delivered:
            write(frame)


def seconds(act: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of *act*."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


def private_bytes() -> int:
    """Return this process's anonymous resident memory (Linux), shared frames not counted."""
    status = Path("/proc/self/status").read_text()
    line = next(x for x in status.splitlines() if x.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Yield a list whose one item, afterwards, is the most private memory gained inside."""
    before, samples, stop = private_bytes(), [0], threading.Event()

    def sample() -> None:
        while not stop.wait(0.02):
            samples[0] = max(samples[0], private_bytes() - before)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def measure(rounds: int) -> dict[str, object]:
    clip, spec, encoding = make_clip(np.random.default_rng(7)), make_spec(), Encoding()
    clip.setflags(write=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def finish() -> None:
            finish_clip(clip, spec, folder / "out", encoding=encoding, watch=Unwatched())

        moments = schedule(NUM_FRAMES, NATIVE_FPS, delivered=spec.delivered_frames, fps=FPS)
        native = (i420.from_rgb(frame, SIZE) for frame in clip)
        delivered = list(retimed(native, moments, interpolation=encoding.interpolation))
        with peak_memory() as bare_peak:
            bare(delivered, folder / "bare.mp4", encoding)
        with peak_memory() as peak:
            finish()
        pairs = []
        for _ in range(rounds):
            plain = seconds(lambda: bare(delivered, folder / "bare.mp4", encoding))
            pairs.append((seconds(finish), plain))
    return {
        "case": f"{NUM_FRAMES} frames {SIZE} at {NATIVE_FPS} fps -> {len(delivered)} at {FPS} fps",
        "encoding": f"x264 {encoding.preset} crf {encoding.crf}, {encoding.interpolation}",
        "finish_wall_s": [round(f[0], 2) for f, _ in pairs],
        "bare_wall_s": [round(b[0], 2) for _, b in pairs],
        "finish_cpu_s": [round(f[1], 2) for f, _ in pairs],
        "bare_cpu_s": [round(b[1], 2) for _, b in pairs],
        "ratio_wall": round(statistics.median(f[0] / b[0] for f, b in pairs), 3),
        "ratio_cpu": round(statistics.median(f[1] / b[1] for f, b in pairs), 3),
        "target_ratio": TARGET_RATIO,
        "peak_private_mb": round(peak[0] / 1e6),
        "bare_peak_private_mb": round(bare_peak[0] / 1e6),
        "clip_mb": round(clip.nbytes / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    numbers = measure(options.rounds)
    text = json.dumps(numbers, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)
    print(
        f"finishing costs {numbers['ratio_wall']} x a bare encode in wall time, "
        f"{numbers['ratio_cpu']} x in CPU (target {TARGET_RATIO}); "
        f"{numbers['peak_private_mb']} MB of memory beside the {numbers['clip_mb']} MB clip, "
        f"{numbers['bare_peak_private_mb']} MB of them x264's own"
    )


if __name__ == "__main__":
    main()
