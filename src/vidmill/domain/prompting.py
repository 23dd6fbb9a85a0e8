"""From the caller's words to the engine's: versioned rules, each visible on the task."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidmill.domain.prompt_rules import (
    CAMERAS,
    JOINTS,
    PHYSICS,
    STYLE_CAMERAS,
    STYLES,
    VERSION,
    Wording,
)

LANGUAGES = tuple(JOINTS)
_NOTHING: Mapping[str, Sequence[str]] = {}

_KANA = re.compile("[\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9f]")
"""Without the middle dot, which Chinese texts have too."""

_HAN = re.compile("[\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LATIN_WORD = re.compile("[A-Za-z\u00c0-\u024f]+")


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Words that a rule added. `target` is the field of the request they went to."""

    rule: str
    target: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ShapedPrompt:
    """What the engine will read, and everything in it that the caller did not write."""

    prompt: str
    negative_prompt: str
    language: str
    additions: tuple[Addition, ...]
    rules_version: str = VERSION


def detect_language(text: str) -> str:
    """Return `ja` if *text* has kana, else `zh` if it has Han characters, else `en`.

    It is `en` too where Latin words outnumber those characters: an English prompt may quote a sign.
    """
    kana, han = len(_KANA.findall(text)), len(_HAN.findall(text))
    if not kana + han or kana + han < len(_LATIN_WORD.findall(text)):
        return "en"
    return "ja" if kana else "zh"


def shape_prompt(
    prompt: str,
    negative_prompt: str = "",
    *,
    default_negative_prompt: str = "",
    language: str | None = None,
    style: str | None = None,
    camera: str | None = None,
    enable_physics: bool = False,
    triggers: Mapping[str, Sequence[str]] = _NOTHING,
) -> ShapedPrompt:
    """Apply the rules. With nothing asked for, both texts come back as they went in.

    *default_negative_prompt* is added to the caller's own, "" when the caller opted out;
    *language* is that of the added words, None = the prompt's own. *triggers* are words by the rule
    that adds those of them which the prompt does not have.
    """
    language = language or detect_language(prompt)
    wanted = {
        **_style_rules(style, camera),
        **({f"camera.{camera}": CAMERAS[camera]} if camera else {}),
        **({"physics": PHYSICS} if enable_physics else {}),
    }
    additions = tuple(
        Addition(rule=rule, target="prompt", text=words[language]) for rule, words in wanted.items()
    )
    additions = (*_trigger_additions(prompt, triggers, JOINTS[language]), *additions)
    if default_negative_prompt:
        rule = Addition(
            rule="negative.default", target="negative_prompt", text=default_negative_prompt
        )
        additions = (*additions, rule)
    return ShapedPrompt(
        prompt=_joined(prompt, "prompt", additions, JOINTS[language]),
        negative_prompt=_joined(negative_prompt, "negative_prompt", additions, JOINTS["en"]),
        language=language,
        additions=additions,
    )


def _style_rules(style: str | None, camera: str | None) -> dict[str, Wording]:
    """Return the rules of *style*; its own camera gives way to one that was asked for."""
    if style is None:
        return {}
    rules = {f"style.{style}": STYLES[style]}
    if style in STYLE_CAMERAS and camera is None:
        rules[f"style.{style}.camera"] = STYLE_CAMERAS[style]
    return rules


def _trigger_additions(
    prompt: str, triggers: Mapping[str, Sequence[str]], joint: str
) -> tuple[Addition, ...]:
    has = prompt.casefold()
    missing = {
        rule: [word for word in words if word.casefold() not in has]
        for rule, words in triggers.items()
    }
    return tuple(
        Addition(rule=rule, target="prompt", text=joint.join(words))
        for rule, words in missing.items()
        if words
    )


def _joined(own: str, target: str, additions: tuple[Addition, ...], joint: str) -> str:
    added = [addition.text for addition in additions if addition.target == target]
    return joint.join(filter(None, [own, *added]))
