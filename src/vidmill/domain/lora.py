"""Brand styles as LoRA pairs, as they are registered and as an order and a spec name them.

A LoRA adds `strength * alpha / rank * up @ down` to linear layers of a network. Wan2.2 has two, so
a style is a pair: `high` for the expert of high noise, `low` for the other.
"""

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from vidmill.domain.errors import FieldProblem

NAME_PATTERN = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
STRENGTH_MAX = 2.0
"""Beyond, every style we know of falls apart; 0 is off, and negative ones are another style."""

TRIGGER_WORDS_MAX = 8
TRIGGER_WORD_MAX_CHARS = 64
LICENCE_MAX_CHARS = 200
Side = Literal["high", "low"]
SIDES: tuple[Side, Side] = ("high", "low")


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """The LoRA of a clip, as its spec names it: the two hashes and the strength decide the pixels.

    Attributes:
        high: SHA-256 (hex) of the file for the high-noise expert; `low` for the other.
    """

    name: str
    high: str
    low: str
    strength: float

    @property
    def key(self) -> str:
        """What a worker holds, whatever the strength: 32 characters that name both files."""
        return self.high[:16] + self.low[:16]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """One stored file of a pair."""

    sha256: str
    size_bytes: int

    @property
    def blob_key(self) -> str:
        return blob_key(self.sha256)


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A registered pair.

    Attributes:
        tenant_id: Whose it is; None = every tenant's.
        trigger_words: Added to the prompt of every clip that uses it.
        strength: Where an order names none.
        targets: Linear layers of each expert that it changes.
        architecture: Of the experts it was made for; see `lora_files.architecture`.
    """

    id: int
    name: str
    tenant_id: int | None
    high: LoraFile
    low: LoraFile
    licence: str
    trigger_words: tuple[str, ...]
    strength: float
    rank: int
    targets: int
    architecture: str
    is_enabled: bool
    created_at: float

    @property
    def version(self) -> str:
        """A short name of these very files: another upload has another one."""
        return hashlib.sha256(f"{self.high.sha256}{self.low.sha256}".encode()).hexdigest()[:8]

    def use(self, strength: float | None) -> LoraUse:
        """Return what a spec says of it."""
        chosen = self.strength if strength is None else strength
        return LoraUse(
            name=self.name, high=self.high.sha256, low=self.low.sha256, strength=float(chosen)
        )


def blob_key(sha256: str) -> str:
    """Return where the blob store keeps the file of that hash."""
    return f"loras/{sha256}/lora.safetensors"


def read_choice(text: str) -> dict[str, Any]:
    """Return what `acme` or `acme:0.8` asks for, as the field `lora` of a request.

    Raises:
        ValueError: It names no LoRA, or its strength is no number.
    """
    name, colon, strength = (part.strip() for part in text.partition(":"))
    if not name:
        raise ValueError(f"{text[:40]!r} names no LoRA; write acme or acme:0.8")
    if not colon:
        return {"name": name}
    try:
        value = float(strength)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{strength[:40]!r} is not a number; write {name[:64]} or {name[:64]}:0.8")
    return {"name": name, "strength": value}


def judge_name(name: str) -> Iterator[FieldProblem]:
    if not re.fullmatch(NAME_PATTERN, name):
        yield _problem(
            "name",
            "not_a_name",
            f"{name[:40]!r} is no name; take up to 64 of a-z, 0-9, '.', '_' and '-', beginning and"
            " ending with a letter or digit",
        )


def judge_strength(strength: float, field: str = "strength") -> Iterator[FieldProblem]:
    """Say what is wrong with *strength*; 0 is refused, since it would be no LoRA at all."""
    if not 0.0 < strength <= STRENGTH_MAX:
        code, limit = ("min", 0.0) if strength <= 0 else ("max", STRENGTH_MAX)
        message = f"{strength:g} is out of range; take more than 0, at most {STRENGTH_MAX:g}"
        yield FieldProblem(pointer=f"#/{field}", code=code, message=message, limit=limit)


def judge_trigger_words(words: Iterable[str]) -> Iterator[FieldProblem]:
    words = [*words]
    if len(words) > TRIGGER_WORDS_MAX:
        message = f"there are {len(words)}, the limit is {TRIGGER_WORDS_MAX}"
        yield _problem("trigger_words", "max_items", message)
    for word in words:
        is_plain = word.strip() and not any(unicodedata.category(c)[0] == "C" for c in word)
        if not is_plain or len(word) > TRIGGER_WORD_MAX_CHARS:
            message = (
                f"{word[:40]!r} is not 1 to {TRIGGER_WORD_MAX_CHARS} printable characters; shorten"
                " it or leave it out"
            )
            yield _problem("trigger_words", "not_a_name", message)


def _problem(field: str, code: str, message: str) -> FieldProblem:
    return FieldProblem(pointer=f"#/{field}", code=code, message=message)
