"""Cursors belong to their question and to nobody who cannot sign."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidmill.api.cursors import make_cursor, read_cursor
from vidmill.domain.errors import InvalidCursor

SECRET = b"s" * 32
QUESTION = {"tenant": 1, "status": "queued"}


@given(st.integers(min_value=0, max_value=2**63 - 1))
@settings(deadline=None)
def test_a_cursor_leads_back_to_its_place(after: int) -> None:
    assert (
        read_cursor(make_cursor(after, QUESTION, secret=SECRET), QUESTION, secret=SECRET) == after
    )


@pytest.mark.parametrize("other", [{}, {"tenant": 2, "status": "queued"}, {"tenant": 1}])
def test_a_cursor_of_another_question_is_refused(other: dict[str, Any]) -> None:
    cursor = make_cursor(7, QUESTION, secret=SECRET)

    with pytest.raises(InvalidCursor):
        read_cursor(cursor, other, secret=SECRET)


def test_a_cursor_signed_by_somebody_else_is_refused() -> None:
    with pytest.raises(InvalidCursor):
        read_cursor(make_cursor(7, QUESTION, secret=b"x" * 32), QUESTION, secret=SECRET)


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        read_cursor(text, QUESTION, secret=SECRET)
