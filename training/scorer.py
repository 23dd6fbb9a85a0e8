"""What does a clip show? Pixel measurements only: no network, no knowledge of the caption.

Calibrated: rendered clips score 1.00 on all four attributes, shuffled captions score at chance
(``tests/training/test_scorer.py`` keeps both).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.vocabulary import ATTRIBUTES, COLOUR_NAMES, SHAPE_NAMES
from training.world import PALETTE, Floats, signed_distance

GRID: Final = 28
MIN_OBJECT_PX: Final = 16
BORDER_PX: Final = 2
MIN_CONTRAST: Final = 0.11
"""Half of the smallest distance between two palette colours, in RGB 0..1."""
GROWTH_RATIO: Final = 2.2
SIDEWAYS: Final = 0.3
UPWARDS: Final = 0.13
"""Travel that counts as motion, in clip heights; half of what ``world.track`` draws."""
RETURN_SHARE: Final = 0.5
"""A bounce ends closer to its start than this share of its range; a rise or fall does not."""

UNSEEN: Final = "?"

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sighting:
    """The attributes seen in a clip; ``UNSEEN`` where no object is visible."""

    foreground: str
    background: str
    shape: str
    motion: str


def _centred(mask: Mask) -> Mask | None:
    """The object cut out at its centroid, scaled by the root of its area: bool [GRID, GRID]."""
    rows, columns = np.nonzero(mask)
    if len(rows) < MIN_OBJECT_PX:
        return None
    offsets = ((np.arange(GRID) + 0.5) / GRID * 2 - 1) * 0.95 * np.sqrt(len(rows))
    at_row = np.round(rows.mean() + offsets).astype(int)
    at_column = np.round(columns.mean() + offsets).astype(int)
    height, width = mask.shape
    inside = ((at_row >= 0) & (at_row < height))[:, None] & ((at_column >= 0) & (at_column < width))
    picked = mask[np.ix_(at_row.clip(0, height - 1), at_column.clip(0, width - 1))]
    return np.asarray(picked & inside, np.bool_)


def _template(shape: str) -> Mask:
    y, x = np.mgrid[-1.3:1.3:260j, -1.3:1.3:260j].astype(np.float32)
    template = _centred(signed_distance(shape, x, y, 0.9) < 0)
    if template is None:
        raise AssertionError(shape)
    return template


TEMPLATES: Final[dict[str, Mask]] = {shape: _template(shape) for shape in SHAPE_NAMES}


def nearest_colour(rgb: Floats) -> str:
    """The palette name closest to float [3] in 0..1."""
    return COLOUR_NAMES[int(((PALETTE - rgb) ** 2).sum(1).argmin())]


def _background(frames: Floats) -> Floats:
    edges = (
        frames[:, :BORDER_PX],
        frames[:, -BORDER_PX:],
        frames[:, :, :BORDER_PX],
        frames[:, :, -BORDER_PX:],
    )
    return np.asarray(np.median(np.concatenate([e.reshape(-1, 3) for e in edges]), 0), np.float32)


def _shape(masks: Iterable[Mask]) -> str:
    """The template with the most overlap, summed over all frames."""
    votes = dict.fromkeys(SHAPE_NAMES, 0.0)
    for mask in masks:
        cut = _centred(mask)
        if cut is None:
            continue
        for shape, template in TEMPLATES.items():
            votes[shape] += float((cut & template).sum() / (cut | template).sum())
    return max(votes, key=lambda shape: votes[shape])


def _motion(centres: Floats, areas: Floats) -> str:
    """Name the motion from float [frames, (x, y)] in heights and float [frames] in pixels."""
    ends = max(2, len(centres) // 6)
    travel = centres[-ends:].mean(0) - centres[:ends].mean(0)
    growth = float(areas[-ends:].mean() / areas[:ends].mean())
    across, along = float(travel[0]), float(travel[1])
    height_range = float(np.subtract(*np.percentile(centres[:, 1], [95, 5])))
    if growth > GROWTH_RATIO:
        return "grow"
    if growth < 1 / GROWTH_RATIO:
        return "shrink"
    if abs(across) > SIDEWAYS and abs(across) > abs(along):
        return "right" if across > 0 else "left"
    if height_range > UPWARDS and abs(along) < RETURN_SHARE * height_range:
        return "bounce"
    if abs(along) > UPWARDS:
        return "down" if along > 0 else "up"
    return "still"


def measure(frames: Floats) -> Sighting:
    """Look at one clip, float [frames, height, width, 3] in 0..1, of any size."""
    frames = np.asarray(frames, np.float32)
    background = _background(frames)
    distance = np.sqrt(((frames - background) ** 2).sum(-1))
    masks = distance > max(MIN_CONTRAST, 0.5 * float(np.percentile(distance, 99)))
    behind = nearest_colour(background)
    visible = masks.sum((1, 2)) >= MIN_OBJECT_PX
    if visible.sum() < max(2, len(frames) // 2):
        return Sighting(UNSEEN, behind, UNSEEN, UNSEEN)
    core = masks & (distance >= np.median(distance[masks]))
    foreground = nearest_colour(np.asarray(np.median(frames[core], 0), np.float32))
    height = frames.shape[1]
    seen = [np.nonzero(mask) for mask in masks[visible]]
    centres = np.array([(c.mean() / height, r.mean() / height) for r, c in seen], np.float32)
    areas = np.array([len(r) for r, _ in seen], np.float32)
    return Sighting(foreground, behind, _shape(masks[visible]), _motion(centres, areas))


Expected = Mapping[str, str | None]


def hits(expected: Expected, seen: Sighting) -> dict[str, bool]:
    """Attribute to right or wrong, for the attributes that the caption names."""
    found = asdict(seen)
    return {name: found[name] == expected[name] for name in ATTRIBUTES if expected.get(name)}


def score(expected: Sequence[Expected], clips: Iterable[Floats]) -> dict[str, float]:
    """Share of right answers per attribute over clips in the order of ``expected``."""
    answers = [hits(want, measure(clip)) for want, clip in zip(expected, clips, strict=True)]
    counted = {name: [a[name] for a in answers if name in a] for name in ATTRIBUTES}
    return {name: float(np.mean(right)) if right else np.nan for name, right in counted.items()}
