"""What the server would refuse of a campaign, by its published limits: told before it is sent.

The server checks again, and its word is final.
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping

from vidmill.cli.campaign import Problem, Row
from vidmill.client import Capabilities, ClipRequest
from vidmill.domain.lora import judge_strength

Check = Callable[[ClipRequest, Capabilities], str | None]
"""Returns what is wrong with one field, or None."""

STEP_TOLERANCE = 1e-6


def check_limits(rows: Iterable[Row], capabilities: Capabilities) -> list[Problem]:
    """Return every value of *rows* beyond the limits in *capabilities*."""
    return [
        Problem(line=row.line, column=column, message=message)
        for row in rows
        for column, message in _wrong(row.clip, capabilities)
    ]


def _wrong(clip: ClipRequest, capabilities: Capabilities) -> Iterator[tuple[str, str]]:
    for column, check in CHECKS.items():
        if message := check(clip, capabilities):
            yield column, message


def _prompt(clip: ClipRequest, capabilities: Capabilities) -> str | None:
    return _too_long(clip.prompt, capabilities.limits.prompt_max_chars)


def _negative_prompt(clip: ClipRequest, capabilities: Capabilities) -> str | None:
    return _too_long(clip.negative_prompt or "", capabilities.limits.negative_prompt_max_chars)


def _too_long(text: str, limit: int) -> str | None:
    length = len(unicodedata.normalize("NFC", text).strip())
    return f"{length} characters, the limit is {limit}" if length > limit else None


def _duration(clip: ClipRequest, capabilities: Capabilities) -> str | None:
    allowed = capabilities.duration
    if not allowed.min <= clip.duration_s <= allowed.max:
        return f"{clip.duration_s:g} s; {allowed.min:g} to {allowed.max:g} s are on offer"
    steps = clip.duration_s / allowed.step
    is_between = abs(steps - round(steps)) > STEP_TOLERANCE
    return f"{clip.duration_s:g} s is not a multiple of {allowed.step:g} s" if is_between else None


def _seed(clip: ClipRequest, capabilities: Capabilities) -> str | None:
    highest = capabilities.limits.seed_max
    is_ok = clip.seed is None or 0 <= clip.seed <= highest
    return None if is_ok else f"{clip.seed} is not between 0 and {highest}"


def _resolution(clip: ClipRequest, capabilities: Capabilities) -> str | None:
    return _not_offered(clip.resolution, [size.name for size in capabilities.resolutions])


def _lora(clip: ClipRequest, capabilities: Capabilities) -> str | None:
    if clip.lora is None:
        return None
    if wrong := [problem.message for problem in judge_strength(clip.lora.get("strength", 1.0))]:
        return f"the strength {wrong[0]}"
    return _not_offered(clip.lora["name"], [lora.name for lora in capabilities.loras])


def _one_of(field: str, offers: str) -> Check:
    """Return the check that *field* is among the *offers*. Servers of old do not tell all."""

    def check(clip: ClipRequest, capabilities: Capabilities) -> str | None:
        if offers not in capabilities.model_fields_set:
            return None
        return _not_offered(getattr(clip, field), getattr(capabilities, offers))

    return check


def _not_offered(value: object, offered: Iterable[object]) -> str | None:
    if value is None or value in offered:
        return None
    choices = ", ".join(map(str, offered))
    remedy = f"choose one of: {choices}" if choices else "there is none; leave it out"
    return f"{value!r} is not on offer; {remedy}"


CHECKS: Mapping[str, Check] = {
    "prompt": _prompt,
    "negative_prompt": _negative_prompt,
    "duration": _duration,
    "resolution": _resolution,
    "aspect_ratio": _one_of("aspect_ratio", "aspect_ratios"),
    "frame_rate": _one_of("frame_rate", "frame_rates"),
    "seed": _seed,
    "lora": _lora,
    "priority": _one_of("priority", "priorities"),
    "style": _one_of("style", "styles"),
    "camera": _one_of("camera", "cameras"),
    "language": _one_of("language", "languages"),
}
