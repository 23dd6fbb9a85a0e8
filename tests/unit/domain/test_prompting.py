"""What rules add to a prompt, and that each addition can be seen."""

import pytest

from vidmill.domain.prompt_rules import JOINTS, PHYSICS, STYLES, VERSION
from vidmill.domain.prompting import LANGUAGES, detect_language, shape_prompt


def test_without_wishes_both_texts_come_back_as_they_went_in() -> None:
    shaped = shape_prompt("a red ball", "blur")

    assert (shaped.prompt, shaped.negative_prompt, shaped.additions) == ("a red ball", "blur", ())


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a red ball", "en"),
        ("红色的球", "zh"),
        ("赤いボール", "ja"),
        ("ボール", "ja"),
        ("\U00020000", "zh"),
        ("", "en"),
        ("Привет", "en"),
    ],
)
def test_language_is_told_by_script(text: str, language: str) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_style_speaks_every_language(style: str, language: str) -> None:
    shaped = shape_prompt("x", language=language, style=style)

    assert shaped.prompt == f"x{JOINTS[language]}{STYLES[style][language]}"
    assert [addition.rule for addition in shaped.additions] == [f"style.{style}"]


def test_words_are_added_in_the_language_of_the_prompt() -> None:
    shaped = shape_prompt("一个红球", enable_physics=True)

    assert shaped.prompt == f"一个红球，{PHYSICS['zh']}"
    assert shaped.language == "zh"


def test_style_comes_before_physics_and_both_are_listed() -> None:
    shaped = shape_prompt("x", style="warm", enable_physics=True)

    assert [addition.rule for addition in shaped.additions] == ["style.warm", "physics"]
    assert all(addition.text in shaped.prompt for addition in shaped.additions)
    assert shaped.rules_version == VERSION


def test_default_negative_prompt_follows_the_callers_own() -> None:
    shaped = shape_prompt("x", "rain", default_negative_prompt="flicker, blur")

    assert shaped.negative_prompt == "rain, flicker, blur"
    assert shaped.additions[-1].target == "negative_prompt"


def test_default_negative_prompt_stands_alone_without_an_own_one() -> None:
    assert shape_prompt("x", default_negative_prompt="blur").negative_prompt == "blur"
    assert shape_prompt("x", default_negative_prompt="blur").prompt == "x"
