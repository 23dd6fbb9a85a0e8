"""One frame as the encoder wants it: I420, BT.709, limited range, at the delivered size.

Frames are converted once, scaled first and interpolated afterwards, because both are linear: a
delivered frame then costs 1.5 bytes a pixel instead of three, and enlarging a small native clip is
paid per native frame, not per delivered one.

An I420 frame is one `uint8 (3 * H / 2, W)` array: H rows of luma, then the quarter-size U and V.
Chroma sits in the middle of its four pixels (`CHROMA_LOCATION`), the place of a plain 2x2 mean.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vidmill.domain.clip import Size

Pixels = NDArray[np.uint8]

CHROMA_LOCATION = 1
"""`Chroma sample location type` 1 of ITU-T H.264 Table E-1 and Figure E-1: centre."""

_KR, _KB = 0.2126, 0.0722
"""Luma weights of red and blue, ITU-R BT.709-6 item 3.2."""


def _bt709_limited() -> NDArray[np.float64]:
    """Return the 3x4 matrix from RGB 0..255 to Y 16..235, Cb and Cr 16..240 (BT.709-6 item 3.4)."""
    luma = np.array([_KR, 1 - _KR - _KB, _KB])
    blue = (np.array([0, 0, 1]) - luma) / (2 * (1 - _KB))
    red = (np.array([1, 0, 0]) - luma) / (2 * (1 - _KR))
    rows = np.stack([luma * 219, blue * 224, red * 224]) / 255
    return np.hstack([rows, [[16], [128], [128]]])


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    turn = np.linalg.inv(matrix[:, :3])
    return np.hstack([turn, -turn @ matrix[:, 3:]])


_TO_YUV = _bt709_limited()
_TO_RGB = _inverse(_TO_YUV)


class Planes(NamedTuple):
    """Views of one I420 frame."""

    y: Pixels
    u: Pixels
    v: Pixels


def planes(frame: Pixels) -> Planes:
    """Return the three planes of *frame*, as views on it."""
    height, width = frame.shape[0] * 2 // 3, frame.shape[1]
    chroma = frame[height:].reshape(2, height // 2, width // 2)
    return Planes(frame[:height], chroma[0], chroma[1])


def blank(size: Size) -> Pixels:
    """Return an uninitialised frame of *size*."""
    return np.empty((size.height_px * 3 // 2, size.width_px), np.uint8)


def from_rgb(rgb: Pixels, size: Size) -> Pixels:
    """Return full-range *rgb*, `(H, W, 3)`, as I420: scaled to cover *size*, the centre cut out."""
    frame = blank(size)
    half = Size(size.width_px // 2, size.height_px // 2)
    sources = cv2.split(cv2.transform(rgb, _TO_YUV))
    for source, target in zip(sources, planes(frame), strict=True):
        wanted = size if target.shape[1] == size.width_px else half
        _cover(source, wanted, out=target)
    return frame


def to_rgb(frame: Pixels, size: Size) -> Pixels:
    """Return I420 *frame* as `(H, W, 3)` full-range RGB, shrunk or grown to *size*."""
    wanted = (size.width_px, size.height_px)
    parts = [
        cv2.resize(plane, wanted, interpolation=_filter(plane, size)) for plane in planes(frame)
    ]
    return np.asarray(cv2.transform(cv2.merge(parts), _TO_RGB), np.uint8)


def _cover(source: Pixels, size: Size, *, out: Pixels) -> None:
    """Scale *source* until it covers *size*, never distorting it, and write its centre to *out*."""
    height, width = source.shape
    scale = max(size.width_px / width, size.height_px / height)
    full = Size(round(width * scale), round(height * scale))
    if (full.width_px, full.height_px) != (width, height):
        method = _filter(source, full)
        source = cv2.resize(source, (full.width_px, full.height_px), interpolation=method)
    left, top = (full.width_px - size.width_px) // 2, (full.height_px - size.height_px) // 2
    np.copyto(out, source[top : top + size.height_px, left : left + size.width_px])


def _filter(source: Any, size: Size) -> int:
    """Return Lanczos to enlarge, and the area mean to shrink: OpenCV's Lanczos aliases there."""
    return cv2.INTER_AREA if size.width_px < source.shape[1] else cv2.INTER_LANCZOS4
