"""Bodies and answers of the LoRA routes as schemas."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from vidmill.domain.lora import LICENCE_MAX_CHARS, STRENGTH_MAX

LORA_NAME = "acme-2026"


class _Doc(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LoraChanges(_Doc):
    """What to change."""

    enabled: StrictBool = Field(description="`false`: no new task may name it.")


class LoraDetails(_Doc):
    """One file of a pair."""

    sha256: str
    size_bytes: int


class Lora(_Doc):
    """A brand style: a pair of LoRA files, one for each expert of the model."""

    name: str = Field(examples=[LORA_NAME])
    version: str = Field(description="Names these very files; another upload has another.")
    licence: str
    trigger_words: list[str] = Field(description="Added to prompts that lack them, visibly.")
    strength: float = Field(description="Where a request names none.")
    rank: int
    layers: int = Field(description="Linear layers of each expert that it changes.")
    architecture: str = Field(description="Blocks, width and inner width of the experts it fits.")
    high: LoraDetails = Field(description="For the expert of high noise.")
    low: LoraDetails = Field(description="For the expert of low noise.")
    shared: bool = Field(description="Every tenant's; only the operator changes it.")
    enabled: bool
    created_at: str


class LoraList(_Doc):
    """What you may use, your own first."""

    data: list[Lora]


_FILE = {"type": "string", "format": "binary"}
UPLOAD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {
            "type": "string",
            "description": "Lower-case letters, digits, '.', '_' and '-'; it is what tasks name.",
        },
        "high": {**_FILE, "description": "Safetensors, for the expert of high noise."},
        "low": {**_FILE, "description": "Safetensors, for the expert of low noise."},
        "licence": {
            "type": "string",
            "maxLength": LICENCE_MAX_CHARS,
            "description": "By what right the style is used.",
        },
        "trigger_words": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Words the style was trained with, a part of the form each.",
        },
        "strength": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": STRENGTH_MAX,
            "default": 1.0,
        },
    },
    "required": ["name", "high", "low", "licence"],
}
"""The form that uploads a pair."""
