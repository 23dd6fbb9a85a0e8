"""Frames between two frames, by dense optical flow (DIS, Kroeger et al., ECCV 2016).

Motion is measured in both directions on a small *guide* picture and carried to the wanted instant;
the full frames are then pulled along it. A place that only one frame shows, because a moving thing
covers or uncovers it, is taken from that frame. Over a cut the frames fade into each other.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import compress, pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vidmill.domain.clip import Size
from vidmill.media.i420 import Pixels, blank, planes

Between = Callable[[float], Pixels]
"""Gives the frame that lies a share 0..1 of the way from one frame to the next."""

Field = NDArray[np.float32]
"""Motion from the first frame to the second in guide pixels, `(h, w, 2)` as (right, down)."""

GUIDE_WIDTH_PX = 256
"""A fifth of 720p: cheap, and DIS finds larger motion there than on a finer picture."""

GUIDE_MAX_GAIN = 4.0
"""Contrast is stretched at most so far: beyond it, noise would pass for texture."""

DIS = {"FinestScale": 1, "GradientDescentIterations": 8, "VariationalRefinementIterations": 0}
"""Differences from OpenCV's preset `fast`, by PSNR against true frames: twice as fine for 1.5 dB;
variational refinement gives 0.5 dB and takes two thirds of the time, so it is left out."""

AGREE_PX = 1.0
"""Motions that differ by less are the same motion."""

FADE_ABOVE_STEPS = 2.0
"""With more delivered frames to a native one, the two fade into each other, or the switch from one
to the other would show. With fewer, the nearer one is taken: mixing two would soften every frame
but the native ones, which looks like a pulse."""

MOST_LEFT = 0.7
"""Part of the difference between two frames that motion may leave unexplained; beyond it they are
two scenes. Measured: .08 to .5 in motion, .8 to 1 over most cuts."""

LEAST_FAR = 0.4
"""A smaller part of the farther frame is not worth its cost."""

ALIKE_LEVELS = 12
"""Guide levels by which two places may differ and still show the same thing."""

LEAST_SURE = 0.05
"""A mean over less sure ground than this part of its window says nothing."""

TILES = (9, 8)
"""Rows and columns of tiles a frame is cut into: most need nothing of the farther frame."""

_LOW_HALF = 0xFFFF_FFFF


class Motion(NamedTuple):
    """Motion from the first frame to the second, as seen in each of them.

    `rank` says, for each vector of `first` and then of `second`, which wins where several land on
    one place; its low half is the vector's number.
    """

    first: Field
    second: Field
    rank: NDArray[np.int64]


class Side(NamedTuple):
    """One of two frames: what is at `x` at the wanted instant is in it at `x + part * motion`."""

    frame: Pixels
    motion: Field
    part: float


def flow_between(here: Pixels, there: Pixels, *, steps: float) -> Between:
    """Return `at(share)`: the frame at a share 0..1 of the way from *here* to *there*.

    *steps* is the number of delivered frames to one native frame.
    """
    if np.array_equal(here, there):
        return lambda _share: here
    guides = _guides(here, there)
    motion = _measured(*guides)
    if not _explains(motion, *guides):
        return blend_between(here, there, steps=steps)
    weigh = _fading if steps > FADE_ABOVE_STEPS else _hidden_only

    def at(share: float) -> Pixels:
        field = _carried(motion, share)
        near, far = Side(here, motion.first, -share), Side(there, motion.second, 1 - share)
        if abs(far.part) < abs(near.part):
            near, far = far, near
        return _pulled(near, far, field=field, weight=weigh(near, far, field))

    return at


def blend_between(here: Pixels, there: Pixels, *, steps: float) -> Between:  # noqa: ARG001
    """Return the cross-fade from *here* to *there*: cheap, and moving edges show double."""

    def at(share: float) -> Pixels:
        return np.asarray(cv2.addWeighted(here, 1 - share, there, share, 0), np.uint8)

    return at


def _explains(motion: Motion, first: Pixels, second: Pixels) -> bool:
    """Say whether *motion* turns one guide into the other; after a cut none does."""
    moved = _taken(second, _places(motion.first, 1.0))
    return cv2.norm(first, moved, cv2.NORM_L1) < MOST_LEFT * cv2.norm(first, second, cv2.NORM_L1)


def _guides(here: Pixels, there: Pixels) -> tuple[Pixels, Pixels]:
    """Shrink both frames to one channel, the direction of colour space in which they differ most.

    That is luma in most scenes; a blue thing on orange of the same luma stays visible too.
    """
    first, second = _thumbnail(here), _thumbnail(there)
    sample = np.concatenate([first[::4, ::4], second[::4, ::4]]).reshape(-1, 3).astype(np.float32)
    mean = sample.mean(0)
    axis = np.linalg.eigh(np.cov(sample, rowvar=False))[1][:, -1]
    reach = np.abs((sample - mean) @ axis).max()
    axis *= min(GUIDE_MAX_GAIN, 127 / max(reach, 1))
    matrix = np.array([[*axis, 128 - mean @ axis]])
    one, two = (np.asarray(cv2.transform(c, matrix), np.uint8) for c in (first, second))
    return one, two


def _thumbnail(frame: Pixels) -> Pixels:
    height, width = planes(frame).u.shape
    size = (GUIDE_WIDTH_PX, max(16, round(height * GUIDE_WIDTH_PX / width)))
    luma, *chroma = planes(frame)
    small = [cv2.resize(luma, size, interpolation=cv2.INTER_AREA)]
    small += [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in chroma]
    return np.asarray(cv2.merge(small), np.uint8)


def _measured(first: Pixels, second: Pixels) -> Motion:
    dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    for setting, value in DIS.items():
        getattr(dis, f"set{setting}")(value)
    forth, back = dis.calc(first, second, None), dis.calc(second, first, None)
    ranks = [_rank(forth, back, first, second), _rank(back, forth, second, first)]
    rank = np.concatenate(ranks).astype(np.int64)
    return Motion(forth, -back, rank << 32 | np.arange(rank.size))


def _rank(flow: Field, reverse: Field, seen: Pixels, other: Pixels) -> Field:
    """Rank vectors: those the reverse flow confirms, those that lead to an equal place, no others.

    Among equals fast comes before slow: what moves is mostly in front of what does not.
    """
    places = _places(flow, 1.0)
    gap = _length(_taken(reverse, places) + flow)
    rank = _length(flow) * np.float32(16) + 1
    rank[gap < 2 * AGREE_PX] += 1 << 20
    differs = cv2.absdiff(seen, _taken(other, places)) > ALIKE_LEVELS
    rank[differs & (gap >= 2 * AGREE_PX)] = 0
    return rank.ravel()


def _carried(motion: Motion, share: float) -> Field:
    """Return the motion of what is at each place at *share*."""
    height, width = motion.first.shape[:2]
    places = np.concatenate([_landing(motion.first, share), _landing(motion.second, share - 1)])
    best = np.zeros(height * width, np.int64)
    np.maximum.at(best, places, motion.rank)
    both = np.concatenate([motion.first, motion.second]).reshape(-1, 2)
    field = both[best & _LOW_HALF].reshape(height, width, 2)
    return _filled(field, (best <= _LOW_HALF).reshape(height, width))


def _landing(flow: Field, part: float) -> NDArray[np.int64]:
    """Return the number of the pixel on which each vector lands after *part* of its way."""
    height, width = flow.shape[:2]
    x, y = cv2.split(_places(flow, part))
    np.rint(np.clip(x, 0, width - 1, out=x), out=x)
    np.rint(np.clip(y, 0, height - 1, out=y), out=y)
    number: NDArray[np.int64] = (y * width + x).astype(np.int64).ravel()
    return number


def _filled(field: Field, holes: NDArray[np.bool_]) -> Field:
    """Give places nothing sure landed on the mean motion of sure ones near by, or none; smooth.

    A ragged field would tear a model's morphing shapes; measured, smoothing also gains 0.5 dB.
    """
    sure = np.dstack([field, np.ones(holes.shape, np.float32)])
    sure[holes] = 0
    for reach_px in (5, 15, 45):
        if not holes.any():
            break
        near = cv2.blur(sure, (reach_px, reach_px))
        found = holes & (near[..., 2] > LEAST_SURE)
        field[found] = near[found][:, :2] / near[found][:, 2:]
        holes = holes & ~found
    field[holes] = 0
    return np.asarray(cv2.blur(cv2.medianBlur(field, 5), (5, 5)), np.float32)


def _fading(near: Side, far: Side, field: Field) -> Field:
    """Return how much of the *far* frame to take, 0..1: by time, and by whose motion fits."""
    fits = [(_fit(side, field) + np.float32(1e-3)) * (1 - abs(side.part)) for side in (near, far)]
    return np.asarray(cv2.blur(fits[1] / (fits[0] + fits[1]), (7, 7)), np.float32)


def _hidden_only(near: Side, far: Side, field: Field) -> Field:
    """Take the *far* frame only where the near one does not show what moves there, and it does."""
    weight = _fit(far, field) - _fit(near, field)
    weight[weight < LEAST_FAR] = 0
    return weight


def _fit(side: Side, field: Field) -> Field:
    """Return 0..1: does what *field* leads to in *side*'s frame move along *field* itself?"""
    gap = _length(_taken(side.motion, _places(field, side.part)) - field)
    return np.asarray(np.exp(-((gap / AGREE_PX) ** 2)), np.float32)


def _pulled(near: Side, far: Side, *, field: Field, weight: Field) -> Pixels:
    """Return the full frame: *near* pulled along *field*, and *far* in the tiles that need it."""
    frame = blank(Size(near.frame.shape[1], near.frame.shape[0] * 2 // 3))
    out, near_planes, far_planes = planes(frame), planes(near.frame), planes(far.frame)
    spread = cv2.dilate(weight, np.ones((3, 3), np.uint8))  # enlarging it reaches the next tile
    is_mixed = [spread[tile].any() for tile in _tiles(weight.shape)]
    for group in ((0,), (1, 2)):  # luma; both chroma planes go by one field
        height, width = out[group[0]].shape
        full = cv2.resize(field * np.float32(width / field.shape[1]), (width, height))
        late = cv2.resize(weight, (width, height))
        places = _places(full, near.part)
        for i in group:
            _taken(near_planes[i], places, out=out[i])
        for tile in compress(_tiles((height, width)), is_mixed):
            places = cv2.scaleAdd(full[tile], far.part, _grid(width, height)[tile])
            later, sooner = late[tile], 1 - late[tile]
            for i in group:
                pulled = _taken(far_planes[i], places)
                np.copyto(out[i][tile], cv2.blendLinear(out[i][tile], pulled, sooner, later))
    return frame


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Cut *shape* into the same `TILES`, whatever its scale."""
    rows, columns = (np.linspace(0, n, k + 1, dtype=int) for n, k in zip(shape, TILES, strict=True))
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            yield slice(top, bottom), slice(left, right)


def _places(flow: Field, part: float) -> Field:
    """Return where each place's content is, *part* of *flow* away."""
    height, width = flow.shape[:2]
    return np.asarray(cv2.scaleAdd(flow, part, _grid(width, height)), np.float32)


def _taken(picture: Any, places: Field, *, out: Any = None) -> Any:
    """Return *picture* as seen at *places*."""
    return cv2.remap(
        picture, places, None, cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE
    )


def _length(flow: Field) -> Field:
    return np.asarray(cv2.magnitude(*cv2.split(flow)), np.float32)


@lru_cache(maxsize=8)
def _grid(width: int, height: int) -> Field:
    """Return each pixel's own (x, y)."""
    columns = np.arange(width, dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)
    return np.dstack(np.meshgrid(columns, rows))
