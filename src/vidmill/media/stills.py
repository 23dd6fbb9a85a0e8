"""Pictures that stand for a clip: a JPEG poster and a small WebP that moves."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from vidmill.domain.clip import Size
from vidmill.domain.ports import Picture

POSTER_QUALITY = 90
FRAME_QUALITY = 80
PREVIEW_QUALITY = 60
PREVIEW_METHOD = 1
"""libwebp's effort 0..6. Method 4 takes twice the time to save a tenth of the bytes."""


def write_poster(path: Path, rgb: Picture) -> None:
    """Write *rgb* (`(H, W, 3)`) as JPEG."""
    Image.fromarray(rgb).save(path, "JPEG", quality=POSTER_QUALITY)


def write_preview_frame(path: Path, rgb: Picture, size: Size) -> None:
    """Write *rgb* as JPEG: scaled to cover *size*, the centre cut out, as clips are."""
    picture = ImageOps.fit(Image.fromarray(rgb), (size.width_px, size.height_px))
    picture.save(path, "JPEG", quality=FRAME_QUALITY)


def write_preview(path: Path, pictures: Sequence[Picture], *, fps: float) -> None:
    """Write *pictures* (RGB, of one size) as a WebP that repeats for ever."""
    first, *rest = [Image.fromarray(picture) for picture in pictures]
    first.save(
        path,
        "WEBP",
        save_all=True,
        append_images=rest,
        duration=round(1000 / fps),
        loop=0,
        quality=PREVIEW_QUALITY,
        method=PREVIEW_METHOD,
        kmin=0,
        kmax=0,  # no key frames: libwebp would code each picture twice to choose, a third slower
    )


def preview_size(size: Size, *, width_px: int) -> Size:
    """Return *size* shrunk to at most *width_px*, with even sides."""
    scale = min(1.0, width_px / size.width_px)
    return Size(*(2 * round(side * scale / 2) for side in (size.width_px, size.height_px)))
