"""Byte ranges, by RFC 9110 §14."""

from typing import Any

import pytest

from vidmill.api.files import ByteRange, matches_etag, requested_range
from vidmill.domain.errors import RangeNotSatisfiable


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-", ByteRange(0, 10)),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=2-5", ByteRange(2, 6)),
        ("bytes=2-99", ByteRange(2, 10)),
        ("bytes=-3", ByteRange(7, 10)),
        ("bytes=-99", ByteRange(0, 10)),
        ("Bytes = 1 - 2", ByteRange(1, 3)),
        ("bytes=9-9", ByteRange(9, 10)),
    ],
)
def test_one_range_is_that_part(header: Any, expected: Any) -> None:
    assert requested_range(header, 10) == expected


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b"],
)
def test_no_several_and_malformed_ranges_are_the_whole_file(header: Any) -> None:
    assert requested_range(header, 10) is None


@pytest.mark.parametrize(
    "header", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=" + "9" * 40 + "-"]
)
def test_a_range_behind_the_end_cannot_be_satisfied(header: Any) -> None:
    with pytest.raises(RangeNotSatisfiable, match="10 bytes"):
        requested_range(header, 10)


def test_an_empty_file_has_no_ranges() -> None:
    with pytest.raises(RangeNotSatisfiable):
        requested_range("bytes=0-", 0)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        ("a", False),
    ],
)
def test_etags_are_compared_weakly(header: Any, expected: Any) -> None:
    assert matches_etag(header, '"a"') is expected
