"""Query parameters: read, or refused with their names."""

from collections.abc import Mapping
from typing import Any

import pytest
from starlette.requests import Request

from vidmill.api.dialects.native_query import LIST_PARAMETERS, STATUS_PARAMETERS, Parser, read_query
from vidmill.domain.errors import InvalidRequest


def read(query: str, parsers: Mapping[str, Parser] = LIST_PARAMETERS) -> Any:
    return read_query(Request({"type": "http", "query_string": query.encode()}), parsers)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("status=queued", {"status": "queued"}),
        ("limit=100", {"limit": 100}),
        ("created_after=2027-01-15T08:00:00Z", {"created_after": 1_800_000_000.0}),
        ("created_after=2027-01-15T08:00:00", {"created_after": 1_800_000_000.0}),
        ("created_after=2027-01-15T09:00:00%2B01:00", {"created_after": 1_800_000_000.0}),
        ("created_before=1800000000.5", {"created_before": 1_800_000_000.5}),
        ("client_reference=a%20b", {"client_reference": "a b"}),
        ("order=desc", {"order": "desc"}),
    ],
)
def test_values_are_parsed(query: str, expected: Any) -> None:
    assert read(query) == expected


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=٣", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("status=running", "status"),
        ("created_after=yesterday", "created_after"),
        ("created_after=nan", "created_after"),
        ("created_before=1e999", "created_before"),
        ("order=up", "order"),
        ("q=", "q"),
        ("q=%00", "q"),
        ("q=" + "x" * 201, "q"),
        ("metadata.=x", "metadata."),
        ("metadata.a%22b=x", 'metadata.a"b'),
        ("colour=red", "colour"),
        ("status=queued&status=failed", "status"),
    ],
)
def test_wrong_values_are_named(query: str, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(query)

    assert [problem.pointer for problem in caught.value.problems] == [f"#/query/{name}"]


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read("limit=0&status=x&colour=red")

    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("wait", ["-1", "30.1", "nan", "soon"])
def test_a_wait_is_0_to_30_seconds(wait: str) -> None:
    with pytest.raises(InvalidRequest):
        read(f"wait={wait}", STATUS_PARAMETERS)
    assert read("wait=30", STATUS_PARAMETERS) == {"wait": 30.0}
