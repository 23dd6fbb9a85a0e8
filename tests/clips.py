"""Small clips with a known content, and the way back from a file to pixels."""

from pathlib import Path

import av
import numpy as np

from vidmill.domain.ports import Frames


def flat_clip(rgb: tuple[int, int, int], *, num_frames: int = 13, height: int = 48) -> Frames:
    """Return *num_frames* frames (5:3) of one colour."""
    return np.full((num_frames, height, height * 5 // 3, 3), rgb, np.uint8)


def moving_clip(num_frames: int = 13, *, step_px: float = 3.0) -> Frames:
    """Return 80x48 frames in which a soft yellow square of 16 pixels moves right over blue."""
    columns = np.arange(80, dtype=np.float64)
    rows = np.arange(48, dtype=np.float64)
    frames = np.empty((num_frames, 48, 80, 3), np.uint8)
    for i in range(num_frames):
        across = np.clip(8.5 - np.abs(columns - 16 - step_px * i), 0, 1)
        down = np.clip(8.5 - np.abs(rows - 24), 0, 1)
        inside = (down[:, None] * across)[..., None]
        frames[i] = np.rint(inside * (240, 220, 40) + (1 - inside) * (20, 40, 200))
    return frames


def decode(path: Path) -> Frames:
    """Return every frame of the video at *path* as RGB, through FFmpeg and the file's own tags."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(pictures)


def presentation_times_s(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time or 0) for frame in container.decode(video=0)]
