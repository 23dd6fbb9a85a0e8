"""What to make: the clip spec, and what came out of it."""

import hashlib
import json
import unicodedata
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from vidmill.domain.lora import LoraUse

SEED_MAX = 2**31 - 1
"""Largest seed; what OpenAI-, DashScope- and diffusers-style clients all accept."""


class Resolution(StrEnum):
    """Name of a delivered size; the pixels are in `DELIVERED_SIZES`."""

    P480 = "480p"
    P720 = "720p"


@dataclass(frozen=True, order=True)
class Size:
    """Width and height in pixels."""

    width_px: int
    height_px: int

    def __str__(self) -> str:
        return f"{self.width_px}x{self.height_px}"


class Aspect(StrEnum):
    """Name of a shape, width to height."""

    WIDE = "16:9"
    TALL = "9:16"
    SQUARE = "1:1"
    LANDSCAPE = "4:3"
    PORTRAIT = "3:4"


DELIVERED_SIZES: dict[tuple[Resolution, Aspect], Size] = {
    (Resolution.P480, Aspect.WIDE): Size(832, 480),
    (Resolution.P480, Aspect.TALL): Size(480, 832),
    (Resolution.P480, Aspect.SQUARE): Size(624, 624),
    (Resolution.P480, Aspect.LANDSCAPE): Size(720, 544),
    (Resolution.P480, Aspect.PORTRAIT): Size(544, 720),
    (Resolution.P720, Aspect.WIDE): Size(1280, 720),
    (Resolution.P720, Aspect.TALL): Size(720, 1280),
    (Resolution.P720, Aspect.SQUARE): Size(960, 960),
    (Resolution.P720, Aspect.LANDSCAPE): Size(1088, 832),
    (Resolution.P720, Aspect.PORTRAIT): Size(832, 1088),
}
"""About as many pixels in each shape; the sizes are those that clients of Wan2.2 ask for."""

SIZE_NAMES: dict[str, tuple[Resolution, Aspect]] = {
    str(size): name for name, size in DELIVERED_SIZES.items()
}
"""Resolution and shape by `WxH`: how dialects name them."""


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """What to make, frozen. It alone determines the pixels, so its hash is the cache key.

    Attributes:
        prompt: What the engine reads, after every visible rule (style, physics) was applied.
        negative_prompt: What the engine reads, the default included unless opted out.
        profile: Name of the model profile.
        native: Size the engine renders at; the delivered size is `size`.
        num_frames: Frames the engine renders, at `native_fps`; always of the form 4k+1.
        duration_s: Delivered length; the file is exact to half a frame.
        fps: Delivered frame rate.
        guidance_scale: Classifier-free guidance of the high-noise expert.
        guidance_scale_2: The same of the low-noise expert.
        lora: The style it is drawn in. Without one nothing is said of it in JSON, so that keys and
            rows from before there were LoRAs stay what they are.
    """

    prompt: str
    negative_prompt: str
    profile: str
    resolution: Resolution
    size: Size
    native: Size
    duration_s: float
    fps: int
    native_fps: int
    num_frames: int
    steps: int
    guidance_scale: float
    guidance_scale_2: float
    flow_shift: float
    seed: int
    lora: LoraUse | None = None

    @property
    def delivered_frames(self) -> int:
        """Frames in the delivered file."""
        return round(self.duration_s * self.fps)

    def cache_key(self, *, is_seeded: bool = True) -> str:
        """Return SHA-256 (hex) of what the caller fixed, as canonical JSON (RFC 8785 in spirit).

        A seed that we drew (*is_seeded* False) is left out: any clip answers such a request, and no
        request that names a seed is answered by that clip.
        """
        fixed = self.to_json() if is_seeded else {**self.to_json(), "seed": None}
        text = json.dumps(fixed, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        # By hand: `asdict` copies deeply, which was a third of what accepting a task costs.
        found = {**vars(self), "size": dict(vars(self.size)), "native": dict(vars(self.native))}
        if self.lora is None:
            del found["lora"]
        else:
            found["lora"] = self.lora.to_json()
        return found

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        parts: dict[str, Any] = {key: Size(**data[key]) for key in ("size", "native")}
        if "lora" in data:
            parts["lora"] = LoraUse.from_json(data["lora"])
        return cls(**{**data, **parts, "resolution": Resolution(data["resolution"])})


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One stored file of a finished clip. `key` is relative to the blob store's root."""

    key: str
    content_type: str
    size_bytes: int
    md5: str
    sha256: str
    width_px: int
    height_px: int


@dataclass(frozen=True, kw_only=True)
class ClipResult:
    """What a finished job delivers.

    Attributes:
        assets: By variant: `video`, `poster`, `preview`.
        native: What the model really drew; a larger delivered size is upscaling, never detail.
        model: Name, revision and file hash of the model that drew it.
        timings_s: Seconds by phase (`denoising`, `decoding`, `encoding`, `storing`).
    """

    assets: dict[str, Asset]
    size: Size
    native: Size
    native_fps: int
    native_frames: int
    fps: int
    num_frames: int
    duration_s: float
    seed: int
    model: dict[str, str] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        assets = {name: Asset(**asset) for name, asset in data["assets"].items()}
        sizes = {key: Size(**data[key]) for key in ("size", "native")}
        return cls(**{**data, **sizes, "assets": assets})


def normalise_text(text: str) -> str:
    """Return *text* in NFC (Unicode UAX #15) without surrounding white space: what limits count."""
    return unicodedata.normalize("NFC", text).strip()


def forbidden_characters(text: str) -> list[str]:
    """Return `U+XXXX` of each control or surrogate character that no prompt may hold.

    Line feed, carriage return and tab are white space to a person, and allowed.
    """
    if text.isprintable():  # the usual case, forty times faster than a look at each character
        return []
    bad = {c for c in text if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\r\t"}
    return [f"U+{ord(c):04X}" for c in sorted(bad)]
