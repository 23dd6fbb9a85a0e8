"""What this server can make: every limit that a request is checked against."""

from collections.abc import Iterable
from typing import Any

from vidmill.domain.clip import DELIVERED_SIZES, SEED_MAX, Aspect
from vidmill.domain.lora import Lora
from vidmill.domain.order import (
    CLIENT_REFERENCE_MAX_CHARS,
    DURATION_STEP_S,
    METADATA_KEY_MAX_CHARS,
    METADATA_MAX_PAIRS,
    METADATA_VALUE_MAX_CHARS,
    PRIORITIES,
    Limits,
    offered_resolutions,
)
from vidmill.domain.profile import ModelProfile
from vidmill.domain.prompt_rules import CAMERAS, STYLES, VERSION
from vidmill.domain.prompting import LANGUAGES


def capabilities_doc(
    limits: Limits,
    profile: ModelProfile,
    *,
    is_vip: bool,
    loras: Iterable[Lora],
    has_enhancer: bool,
) -> dict[str, Any]:
    has_rules = profile.has_prompt_rules
    offered = offered_resolutions(limits, profile)
    return {
        "model": {
            "name": profile.name,
            "title": profile.title,
            "revision": profile.revision,
            "licence": profile.licence,
            "is_toy": profile.is_toy,
            "steps": profile.steps,
        },
        "engine": {
            "name": profile.engine,
            "is_remote": profile.remote is not None,
            "progress": profile.progress,
            "cancel": profile.cancel,
        },
        "resolutions": [
            {
                "name": name,
                "width": DELIVERED_SIZES[name, Aspect.WIDE].width_px,
                "height": DELIVERED_SIZES[name, Aspect.WIDE].height_px,
                "native_width": profile.sizes[name].width_px,
                "native_height": profile.sizes[name].height_px,
            }
            for name in offered
        ],
        "aspect_ratios": {
            aspect: [str(DELIVERED_SIZES[name, aspect]) for name in offered]
            for aspect in profile.aspects
        },
        "duration": {
            "min": limits.duration_min_s,
            "max": limits.duration_max_s,
            "step": DURATION_STEP_S,
        },
        "frame_rates": list(limits.frame_rates),
        "default_frame_rate": limits.default_frame_rate,
        "native_frame_rate": profile.native_fps,
        "languages": [name for name in LANGUAGES if name in profile.languages],
        "styles": list(STYLES) if has_rules else [],
        "cameras": list(CAMERAS) if has_rules else [],
        "enable_physics": has_rules,
        "loras": [
            {
                "name": lora.name,
                "strength": lora.strength,
                "trigger_words": list(lora.trigger_words),
                "licence": lora.licence,
            }
            for lora in loras
        ],
        "enhance": has_enhancer,
        "prompt_rules_version": VERSION if has_rules else None,
        "default_negative_prompt": profile.default_negative_prompt,
        "priorities": [name for name in PRIORITIES if name != "high" or is_vip],
        "limits": _limits(limits),
    }


def _limits(limits: Limits) -> dict[str, int]:
    return {
        "prompt_max_chars": limits.prompt_max_chars,
        "negative_prompt_max_chars": limits.negative_prompt_max_chars,
        "seed_max": SEED_MAX,
        "client_reference_max_chars": CLIENT_REFERENCE_MAX_CHARS,
        "metadata_max_pairs": METADATA_MAX_PAIRS,
        "metadata_key_max_chars": METADATA_KEY_MAX_CHARS,
        "metadata_value_max_chars": METADATA_VALUE_MAX_CHARS,
    }
