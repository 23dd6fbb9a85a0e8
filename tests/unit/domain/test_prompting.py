"""What rules add to a prompt, and that each addition can be seen."""

import pytest

from vidmill.domain.prompt_rules import (
    CAMERAS,
    JOINTS,
    PHYSICS,
    STYLE_CAMERAS,
    STYLES,
    VERSION,
    Wording,
)
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
        ("ﾎﾞｰﾙ", "ja"),
        ("阿尔弗雷德・诺贝尔", "zh"),
        ("a neon sign that says 営業中", "en"),
        ("iPhone 15 Pro Max 放在木桌上", "zh"),
    ],
)
def test_language_is_told_by_script(text: str, language: str) -> None:
    assert detect_language(text) == language


ALL_WORDINGS = {
    **{f"style.{name}": words for name, words in STYLES.items()},
    **{f"style.{name}.camera": words for name, words in STYLE_CAMERAS.items()},
    **{f"camera.{name}": words for name, words in CAMERAS.items()},
    "physics": PHYSICS,
}


@pytest.mark.parametrize("words", ALL_WORDINGS.values(), ids=ALL_WORDINGS)
def test_every_rule_speaks_every_language(words: Wording) -> None:
    assert tuple(words) == LANGUAGES
    assert [detect_language(text) for text in words.values()] == list(LANGUAGES)


def test_no_two_rules_say_the_same() -> None:
    texts = [words[language] for words in ALL_WORDINGS.values() for language in LANGUAGES]

    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_style_adds_its_words_and_nothing_else_beside_a_camera(style: str, language: str) -> None:
    shaped = shape_prompt("x", language=language, style=style, camera="static")

    words = [STYLES[style][language], CAMERAS["static"][language]]
    assert shaped.prompt == JOINTS[language].join(["x", *words])
    assert [added.rule for added in shaped.additions] == [f"style.{style}", "camera.static"]


@pytest.mark.parametrize("style", STYLE_CAMERAS)
def test_a_style_brings_its_own_camera_where_none_is_named(style: str) -> None:
    shaped = shape_prompt("x", style=style)

    rules = [f"style.{style}", f"style.{style}.camera"]
    assert [added.rule for added in shaped.additions] == rules
    assert shaped.prompt.endswith(STYLE_CAMERAS[style]["en"])


def test_words_are_added_in_the_language_of_the_prompt() -> None:
    shaped = shape_prompt("一个红球", enable_physics=True)

    assert shaped.prompt == f"一个红球，{PHYSICS['zh']}"
    assert shaped.language == "zh"


def test_style_comes_before_camera_and_camera_before_physics() -> None:
    shaped = shape_prompt("x", style="warm", camera="pan_left", enable_physics=True)

    rules = ["style.warm", "camera.pan_left", "physics"]
    assert [addition.rule for addition in shaped.additions] == rules
    assert all(addition.text in shaped.prompt for addition in shaped.additions)
    assert shaped.rules_version == VERSION


def test_default_negative_prompt_follows_the_callers_own() -> None:
    shaped = shape_prompt("x", "rain", default_negative_prompt="flicker, blur")

    assert shaped.negative_prompt == "rain, flicker, blur"
    assert shaped.additions[-1].target == "negative_prompt"


def test_default_negative_prompt_stands_alone_without_an_own_one() -> None:
    assert shape_prompt("x", default_negative_prompt="blur").negative_prompt == "blur"
    assert shape_prompt("x", default_negative_prompt="blur").prompt == "x"
