"""From the caller's words to the engine's: versioned rules, each visible on the task."""

from collections.abc import Mapping
from dataclasses import dataclass

from vidmill.domain.prompt_rules import JOINTS, PHYSICS, STYLES, VERSION

LANGUAGES = tuple(JOINTS)


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
    """Return `ja` if *text* has kana, else `zh` if it has Han characters, else `en`."""
    if any("\u3040" <= c <= "\u30ff" for c in text):
        return "ja"
    if any("\u3400" <= c <= "\u9fff" or "\U00020000" <= c <= "\U0003ffff" for c in text):
        return "zh"
    return "en"


def shape_prompt(
    prompt: str,
    negative_prompt: str = "",
    *,
    default_negative_prompt: str = "",
    language: str | None = None,
    style: str | None = None,
    enable_physics: bool = False,
) -> ShapedPrompt:
    """Apply the rules. With nothing asked for, both texts come back as they went in.

    *default_negative_prompt* is added to the caller's own, "" when the caller opted out;
    *language* is that of the added words, None = the prompt's own.
    """
    language = language or detect_language(prompt)
    additions = _prompt_additions(language, style=style, enable_physics=enable_physics)
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


def _prompt_additions(
    language: str, *, style: str | None, enable_physics: bool
) -> tuple[Addition, ...]:
    wanted: Mapping[str, Mapping[str, str]] = {
        **({f"style.{style}": STYLES[style]} if style else {}),
        **({"physics": PHYSICS} if enable_physics else {}),
    }
    return tuple(
        Addition(rule=rule, target="prompt", text=words[language]) for rule, words in wanted.items()
    )


def _joined(own: str, target: str, additions: tuple[Addition, ...], joint: str) -> str:
    added = [addition.text for addition in additions if addition.target == target]
    return joint.join(filter(None, [own, *added]))
