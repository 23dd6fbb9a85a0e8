"""The pixel world: one flat-coloured shape on a flat background, seven motions, any clip length.

The clip always shows the whole motion over its length; only bounces keep their own slow pace.
All geometry is in units of the clip height, with y pointing down.
"""

import random
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.vocabulary import COLOUR_NAMES, COLOURS, MOTION_NAMES, SHAPE_NAMES

Floats = NDArray[np.float32]

HEIGHT_PX: Final = 48
WIDTH_PX: Final = 80
ASPECT: Final = WIDTH_PX / HEIGHT_PX
FPS: Final = 4
FRAME_COUNTS: Final = (13, 17, 21, 25, 29, 33, 37, 41)
"""Clip lengths of 3 to 10 s: ``FPS * duration_s + 1`` frames."""

PALETTE: Final[Floats] = np.array(
    [COLOURS[name].rgb for name in COLOUR_NAMES], np.float32
) / np.float32(255)
"""float32 [colours, 3] in 0..1, rows in the order of ``COLOUR_NAMES``."""

RADIUS: Final = 0.29
GROWN_RADIUS: Final = 0.39
SHRUNK_RADIUS: Final = 0.13
MARGIN: Final = 0.02
STAR_OUTER: Final = 1.16
STAR_INNER: Final = 0.62
"""A slimmer star (.50) did not survive a codec of 4x4 pixel cells: its arms blur to a disc."""
CROSSING: Final = 0.8
"""Share of the free width that an object crosses: at most 3.2 pixels per frame."""
FRAMES_PER_BOUNCE: Final = 12
"""Keeps a bouncing object below 3.6 pixels per frame: faster ones smear within a codec cell."""


@dataclass(frozen=True)
class Scene:
    """What one clip shows; ``seed`` decides the small jitter of place and size."""

    foreground: str
    background: str
    shape: str
    motion: str
    seed: int


def is_held_out(scene: Scene) -> bool:
    """True for the one attribute combination in eight that training never shows."""
    number = (
        COLOUR_NAMES.index(scene.foreground) * 31
        + COLOUR_NAMES.index(scene.background) * 17
        + SHAPE_NAMES.index(scene.shape) * 7
        + MOTION_NAMES.index(scene.motion) * 5
    )
    return number % 8 == 3


def sample_scene(rng: random.Random, *, held_out: bool = False) -> Scene:
    """Draw a scene from the training combinations, or from the held-out ones."""
    while True:
        foreground, background = rng.sample(COLOUR_NAMES, 2)
        scene = Scene(
            foreground,
            background,
            rng.choice(SHAPE_NAMES),
            rng.choice(MOTION_NAMES),
            rng.randrange(2**31),
        )
        if is_held_out(scene) == held_out:
            return scene


def training_scenes(rng: random.Random) -> list[Scene]:
    """Every training combination once, shuffled, each with a fresh jitter seed."""
    scenes = [
        Scene(foreground, background, shape, motion, rng.randrange(2**31))
        for foreground in COLOUR_NAMES
        for background in COLOUR_NAMES
        if foreground != background
        for shape in SHAPE_NAMES
        for motion in MOTION_NAMES
    ]
    kept = [scene for scene in scenes if not is_held_out(scene)]
    rng.shuffle(kept)
    return kept


def signed_distance(shape: str, x: Floats, y: Floats, radius: Floats | float) -> Floats:
    """Distance to the outline, negative inside; one radius gives roughly equal areas."""
    match shape:
        case "circle":
            distance = np.hypot(x, y) - 0.95 * radius
        case "square":
            distance = np.maximum(np.abs(x), np.abs(y)) - 0.86 * radius
        case "triangle":
            y = y - 0.18 * radius
            flank = -0.5 * y + 0.866 * np.abs(x) - 0.62 * radius
            distance = np.maximum(y - 0.66 * radius, flank)
        case _:
            distance = _star_distance(x, y, radius)
    return np.asarray(distance, np.float32)


def _star_distance(x: Floats, y: Floats, radius: Floats | float) -> Floats:
    """Distance to the edge line of the five-armed star's sector that holds the point."""
    sector = np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + sector) % (2 * sector) - sector)
    length = np.hypot(x, y)
    outer, inner = STAR_OUTER * radius, STAR_INNER * radius
    edge_x, edge_y = inner * np.sin(sector), inner * np.cos(sector) - outer
    cross = (length * np.cos(angle) - outer) * edge_x - length * np.sin(angle) * edge_y
    return np.asarray(cross / np.hypot(edge_x, edge_y), np.float32)


def track(scene: Scene, num_frames: int) -> tuple[Floats, Floats, Floats]:
    """Centre x, centre y and radius per frame, each float32 [num_frames], in heights."""
    jitter = random.Random(scene.seed)
    radius = RADIUS * jitter.uniform(0.97, 1.03)
    x = np.full(num_frames, ASPECT / 2 + jitter.uniform(-0.05, 0.05), np.float32)
    y = np.full(num_frames, 0.5 + jitter.uniform(-0.02, 0.02), np.float32)
    radii = np.full(num_frames, radius, np.float32)
    time = np.linspace(0, 1, num_frames, dtype=np.float32)
    edge = radius * STAR_OUTER + MARGIN
    along = 1 - 2 * edge
    across = CROSSING * (ASPECT - 2 * edge)
    left = (ASPECT - across) / 2
    match scene.motion:
        case "right":
            x = left + across * time
        case "left":
            x = left + across * (1 - time)
        case "down":
            y = edge + along * time
        case "up":
            y = edge + along * (1 - time)
        case "bounce":
            bounces = max(1, (num_frames - 1) // FRAMES_PER_BOUNCE)
            y = 1 - edge - along * np.abs(np.cos(np.pi * bounces * time))
        case "grow":
            radii = SHRUNK_RADIUS + (GROWN_RADIUS - SHRUNK_RADIUS) * time
        case _:
            radii = GROWN_RADIUS - (GROWN_RADIUS - SHRUNK_RADIUS) * time
    return x, y, radii


def coverage(scene: Scene, num_frames: int) -> Floats:
    """How much of each pixel the object covers: float32 [num_frames, height, width] in 0..1."""
    x, y, radius = (a.astype(np.float32)[:, None, None] for a in track(scene, num_frames))
    rows, columns = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX].astype(np.float32)
    pixel_x, pixel_y = (columns[None] + 0.5) / HEIGHT_PX, (rows[None] + 0.5) / HEIGHT_PX
    distance_px = signed_distance(scene.shape, pixel_x - x, pixel_y - y, radius) * HEIGHT_PX
    return np.asarray(np.clip(0.5 - distance_px, 0, 1), np.float32)


def colours(scene: Scene) -> tuple[Floats, Floats]:
    """Foreground and background, each float32 [3] in 0..1."""
    foreground = PALETTE[COLOUR_NAMES.index(scene.foreground)]
    return foreground, PALETTE[COLOUR_NAMES.index(scene.background)]


def render(scene: Scene, num_frames: int) -> Floats:
    """The clip: float32 [num_frames, height, width, 3] in 0..1."""
    foreground, background = colours(scene)
    inside = coverage(scene, num_frames)[..., None]
    return np.asarray(background + (foreground - background) * inside, np.float32)
