"""What there is to measure: pieces of a few minutes, none above eight, computed from the profiles.

A piece is settled once; the next run goes on with the others. Its estimate is the arithmetic floor
of what it draws, times 2.5, and allowances for what the floor leaves out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from bench.gpu.floor import ExpertShape, Rates, floor_s, forward_flops, passes, steps_by_expert
from bench.gpu.session import Setup
from vidmill.domain.clip import Resolution, Size
from vidmill.domain.profile import Layout, ModelProfile

LONGEST_S = 480
"""What would take longer is not drawn whole: steps are timed, and the clip is extrapolated."""

REFERENCE_RATES = Rates(linear=790e12, attention=790e12)
"""bfloat16 on an H200 with random data: what estimates reckon with."""

CLIP_S = 5.0
"""81 frames at 16 a second, what A14B was trained on."""

CARDS_GB = {Layout.PARKED: 80, Layout.FP8: 48, Layout.OFFLOAD: 24}
"""The card that each layout is meant for; torch gets no more than its memory."""

FIRST = (
    "machine",
    "step:a14b-quality-resident:720p",
    "step:a14b-balanced-resident:720p",
    "clip:a14b-fast-resident:720p",
    "cancel:a14b-fast-resident:720p",
    "match:a14b-balanced-resident:480p",
    "match:a14b-fast-resident:480p",
    "step:a14b-balanced-resident-eager:480p",
    "fits:a14b-quality-fp8-48gb:720p",
    "fits:a14b-quality-parked-80gb:720p",
    "fits:a14b-quality-offload-24gb:720p",
)
"""What half an hour is for, in this order: that it loads and how far from the floor a step is, in
bfloat16 and in FP8; a whole distilled clip, and a cancel through compiled blocks; that FP8 and the
fused pair compute the right thing; FP8 uncompiled, should compiling fail; peaks against the plan.
`load` writes 41 GB and comes last."""

_SLOWER_THAN_FLOOR = 2.5
_OPEN_S = 40
_COMPILE_S = 60
_DECODE_S = 15
"""Of 81 frames at 720p, 0.64 PFLOP in float32; a generous guess until measured."""

_TIMED_STEPS = 4
"""Both experts take part, and one call of each is spare: the first compiles or tunes kernels."""

_EVEN_FLOW_SHIFT = 1.0
"""At which each expert has one of two steps; at 12 the high-noise one has both."""

_CACHED_STEPS = 8
_MATCH_STEPS = 6
_MATCH_CLIP_S = 1.0
_CANCELS = 5

CLIPS_AROUND_CANCELS = 3
"""Whole ones of a step: the first compiles, one is timed, one is drawn after all cancels."""

DECODES_CANCELLED = 3

LORA_CLIPS = 6
"""Without, with one, with another, and with the first again: the way there, back and afterwards."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One thing to measure.

    Attributes:
        name: `kind:setup:resolution`, as far as it has them.
        kind: Key of `measurements.MEASUREMENTS`.
        estimate_s: Seconds it should take, opening the engine included.
        steps: Of each clip it draws; 0 = the profile's.
        flow_shift: Of each clip it draws; 0 = the profile's.
        repeats: Clips, or cancels inside a step.
    """

    name: str
    kind: str
    estimate_s: float = 0.0
    setup: Setup | None = None
    resolution: Resolution = Resolution.P480
    steps: int = 0
    flow_shift: float = 0.0
    clip_s: float = CLIP_S
    repeats: int = 1


def all_pieces(profiles: Mapping[str, ModelProfile]) -> list[Piece]:
    """Return every piece: those of `FIRST`, then the rest with those of one setup together."""
    pieces = [
        Piece(name="machine", kind="machine", estimate_s=60),
        *(piece for profile in profiles.values() for piece in _of_profile(profile)),
        *(piece for profile in profiles.values() for piece in _of_layouts(profile)),
    ]
    plainest = Setup(profile=next(iter(profiles)))
    pieces.append(Piece(name="load", kind="load", estimate_s=300, setup=plainest))
    return sorted(pieces, key=_turn)


def _turn(piece: Piece) -> int:
    return FIRST.index(piece.name) if piece.name in FIRST else len(FIRST)


def expert_shape(profile: ModelProfile) -> ExpertShape:
    config = next(part.config for part in profile.parts if part.folder == "transformer")
    return ExpertShape.from_config(config, text_tokens=profile.max_text_tokens)


def clip_floor_s(
    profile: ModelProfile, size: Size, num_frames: int, *, steps: float, rates: Rates
) -> float:
    """Return the floor of *steps* steps; every forward counted, cached or not."""
    forward_s = floor_s(forward_flops(expert_shape(profile), size, num_frames), rates)
    return steps * passes(profile.guidance_scale) * forward_s


def _of_profile(profile: ModelProfile) -> Iterator[Piece]:
    setup = Setup(profile=profile.name)
    base = Piece(name="", kind="", setup=setup)
    yield _match(profile, setup)
    for resolution in profile.sizes:
        at = replace(base, resolution=resolution)
        yield _estimated(profile, replace(at, kind="step", steps=_TIMED_STEPS))
        for repeats in (2, 1):
            clip = _estimated(profile, replace(at, kind="clip", repeats=repeats))
            if clip.estimate_s <= LONGEST_S:
                yield clip
                break
    lora = replace(base, kind="lora", steps=_TIMED_STEPS, clip_s=_MATCH_CLIP_S, repeats=LORA_CLIPS)
    yield _estimated(profile, lora)
    largest = max(profile.sizes, key=lambda name: profile.sizes[name].width_px)
    cancel = replace(base, kind="cancel", resolution=largest, steps=1, repeats=_CANCELS)
    yield _estimated(profile, cancel)
    if profile.compile:
        eager = replace(setup, is_compiled=False)
        yield _match(profile, eager)
        yield _estimated(profile, replace(cancel, setup=eager))
        yield _estimated(profile, replace(base, kind="step", setup=eager, steps=_TIMED_STEPS))
    if profile.step_cache:
        cached = replace(setup, has_step_cache=True)
        yield _match(profile, cached)
        yield _estimated(profile, replace(base, kind="step", setup=cached, steps=_CACHED_STEPS))


def _of_layouts(profile: ModelProfile) -> Iterator[Piece]:
    largest = max(profile.sizes, key=lambda name: profile.sizes[name].width_px)
    for layout in profile.layouts:
        if layout not in CARDS_GB:
            continue
        setup = Setup(profile=profile.name, layout=layout, memory_gb=CARDS_GB[layout])
        yield _match(profile, setup)
        piece = Piece(name="", kind="fits", setup=setup, resolution=largest, steps=_TIMED_STEPS)
        if passes(profile.guidance_scale) > 1:  # two steps will do: each is two calls
            piece = replace(piece, steps=2, flow_shift=_EVEN_FLOW_SHIFT)
        yield _estimated(profile, piece)


def high_and_low(profile: ModelProfile, steps: int) -> tuple[int, int]:
    """Return how many of *steps* each expert takes."""
    return steps_by_expert(steps, profile.flow_shift, profile.boundary_ratio)


def _match(profile: ModelProfile, setup: Setup) -> Piece:
    piece = Piece(name="", kind="match", setup=setup, steps=_MATCH_STEPS, clip_s=_MATCH_CLIP_S)
    return _estimated(profile, piece)


def _estimated(profile: ModelProfile, piece: Piece) -> Piece:
    """Return *piece* with its name and its estimate."""
    assert piece.setup is not None
    size, num_frames = profile.sizes[piece.resolution], profile.num_frames(piece.clip_s)
    steps: float = piece.repeats * (piece.steps or profile.steps)
    if piece.kind == "cancel":  # half a step each, and whole ones without guidance
        steps = piece.repeats / 2 + (CLIPS_AROUND_CANCELS + DECODES_CANCELLED) / passes(
            profile.guidance_scale
        )
    drawn_s = clip_floor_s(profile, size, num_frames, steps=steps, rates=REFERENCE_RATES)
    pixels = size.width_px * size.height_px * num_frames
    decode_s = piece.repeats * _DECODE_S * pixels / (1280 * 720 * 81)
    is_compiled = profile.compile and piece.setup.is_compiled
    opened = 2 if piece.kind == "match" else 1  # the reference's engine first
    return replace(
        piece,
        name=f"{piece.kind}:{piece.setup.label}:{piece.resolution}",
        estimate_s=opened * _OPEN_S
        + (_COMPILE_S if is_compiled else 0)
        + _SLOWER_THAN_FLOOR * drawn_s
        + decode_s,
    )
