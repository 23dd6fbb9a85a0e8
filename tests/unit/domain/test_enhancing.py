"""Which answers of a language model may take the place of a prompt."""

import pytest

from vidmill.domain.enhancing import INSTRUCTIONS, UnusableAnswer, usable
from vidmill.domain.prompting import LANGUAGES, detect_language


def test_it_is_told_in_every_language_in_that_language() -> None:
    assert tuple(INSTRUCTIONS) == LANGUAGES
    assert [detect_language(words) for words in INSTRUCTIONS.values()] == list(LANGUAGES)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("  a red\n\n ball ", "a red ball"),
        ('"a red ball"', "a red ball"),
        ("“a red ball”", "a red ball"),
        ('a "red" ball', 'a "red" ball'),
        ("e\u0301tude in red", "\u00e9tude in red"),
    ],
)
def test_an_answer_becomes_one_line_without_quotation_marks(answer: str, text: str) -> None:
    assert usable(answer, "a ball", max_chars=20) == text


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (" \n", "empty"),
        ('""', "empty"),
        ("a" * 21, "limit is 20"),
        ("a\x00b", "control"),
        ("a\ud800b", "control"),
        ("红色的球", "language"),
    ],
)
def test_an_answer_that_is_no_prompt_is_refused_without_quoting_it(answer: str, why: str) -> None:
    with pytest.raises(UnusableAnswer, match=why) as caught:
        usable(answer, "a ball", max_chars=20)

    assert answer.strip() == "" or answer not in str(caught.value)
