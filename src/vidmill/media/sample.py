"""A few frames of a finished clip, evenly spread: for contact sheets and for looking at."""

from pathlib import Path

import av
from PIL import Image

from vidmill.domain.errors import BadOutput


def sample_frames(path: Path, count: int) -> list[Image.Image]:
    """Return *count* frames of the video at *path*, the first and the last among them.

    The clip is decoded once, and only the wanted frames are converted.

    Raises:
        BadOutput: It cannot be decoded, or has fewer than *count* frames.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            total = stream.frames
            wanted = {round(k * (total - 1) / max(1, count - 1)) for k in range(count)}
            frames = enumerate(container.decode(stream))
            pictures = [frame.to_image() for index, frame in frames if index in wanted]
    except (av.FFmpegError, IndexError) as error:
        raise BadOutput(f"{path.name} cannot be decoded: {error}") from error
    if len(pictures) < count:
        raise BadOutput(f"{path.name} has {len(pictures)} of the {count} frames that were wanted")
    return pictures
