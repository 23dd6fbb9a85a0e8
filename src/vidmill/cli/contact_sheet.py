"""One picture of many clips: a row of frames each, its caption beside it."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vidmill.media.sample import sample_frames

FRAMES_PER_CLIP = 6
FRAME_WIDTH_PX = 208
MARGIN_PX = 12
CAPTION_PX = 30
TEXT_PX = 18
INK = (32, 32, 36)
PAPER = (250, 250, 248)

FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
)
FONT_SUFFIXES = {".ttf", ".otf", ".ttc"}
_NOWHERE = "\U0010fffd"
"""A private-use character that no font draws: its picture is the font's sign for 'missing'."""

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One clip of the sheet. `fallback` is ASCII, for machines without a font for `caption`."""

    path: Path
    caption: str
    fallback: str


def write_contact_sheet(path: Path, strips: Sequence[Strip]) -> None:
    """Draw *strips* below each other and write *path* as PNG.

    Raises:
        BadOutput: A clip cannot be decoded.
    """
    fonts = Fonts()
    rows = [_row(strip, fonts) for strip in strips]
    width = max(row.width for row in rows) + 2 * MARGIN_PX
    height = sum(row.height + MARGIN_PX for row in rows) + MARGIN_PX
    sheet = Image.new("RGB", (width, height), PAPER)
    top = MARGIN_PX
    for row in rows:
        sheet.paste(row, (MARGIN_PX, top))
        top += row.height + MARGIN_PX
    sheet.save(path, "PNG")


def _row(strip: Strip, fonts: "Fonts") -> Image.Image:
    pictures = [_small(frame) for frame in sample_frames(strip.path, FRAMES_PER_CLIP)]
    frame_width, frame_height = pictures[0].size
    step = frame_width + 4
    row = Image.new("RGB", (step * len(pictures) - 4, frame_height + CAPTION_PX), PAPER)
    font = fonts.find(strip.caption)
    caption = strip.caption if font else strip.fallback
    draw = ImageDraw.Draw(row)
    draw.text((0, 2), caption, fill=INK, font=font or fonts.plain)
    for index, picture in enumerate(pictures):
        row.paste(picture, (index * step, CAPTION_PX))
    return row


def _small(frame: Image.Image) -> Image.Image:
    height = round(frame.height * FRAME_WIDTH_PX / frame.width)
    return frame.resize((FRAME_WIDTH_PX, height), Image.Resampling.LANCZOS)


class Fonts:
    """Finds a font that can draw a text, and says so only if it can draw all of it."""

    def __init__(self, folders: Sequence[str] = FONT_FOLDERS) -> None:
        plain = ImageFont.load_default(TEXT_PX)
        assert isinstance(plain, Font)  # Pillow is built with FreeType in all its wheels
        self.plain = plain
        self._folders = folders
        self._found: list[Font] = [plain]

    def find(self, text: str) -> Font | None:
        """Return a font with a glyph for every character of *text*, or None."""
        for font in self._found:
            if can_draw(font, text):
                return font
        for path in self._candidates(text):
            try:
                font = ImageFont.truetype(str(path), TEXT_PX)
            except OSError:
                continue
            if can_draw(font, text):
                self._found.append(font)
                return font
        return None

    def _candidates(self, text: str) -> Iterator[Path]:
        yield from _fontconfig(text)
        for folder in self._folders:
            files = sorted(Path(folder).expanduser().rglob("*"))
            yield from (file for file in files if file.suffix.lower() in FONT_SUFFIXES)


def can_draw(font: Font, text: str) -> bool:
    """Whether *font* has a picture of its own for every character of *text*."""
    missing = bytes(font.getmask(_NOWHERE))
    return all(bytes(font.getmask(char)) != missing for char in set(text) if not char.isspace())


def _fontconfig(text: str) -> list[Path]:
    """Return fonts that fontconfig, if it is there, says can draw *text*."""
    program = shutil.which("fc-list")
    if not program:
        return []
    charset = " ".join(f"{ord(char):x}" for char in sorted(set(text)) if not char.isspace())
    command = [program, f":charset={charset}", "--format=%{file}\\n"]
    try:
        done = subprocess.run(  # noqa: S603  # a fixed program, its argument is hexadecimal
            command, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [Path(line) for line in sorted(done.stdout.splitlines()) if line]
