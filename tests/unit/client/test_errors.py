"""What an answer of the server becomes."""

import json
from typing import Any

import pytest

from vidmill.client import (
    ApiError,
    ClipRequest,
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServerError,
    Unauthorized,
)
from vidmill.client._errors import api_error, retry_after_s

PROBLEM = {
    "title": "One or more fields are wrong",
    "status": 422,
    "detail": "prompt: too long",
    "code": "invalid_request",
    "request_id": "req_1",
    "errors": [{"pointer": "#/prompt", "code": "max_length", "message": "too long", "limit": 200}],
}


WRONG_CLIPS = [
    (
        {"lora": "acme"},
        FieldError(
            pointer="#/lora",
            code="type",
            message="'acme' is not what it takes: it should be a valid dictionary;"
            ' write {"name": "acme", "strength": 0.8}',
        ),
    ),
    (
        {"duration_s": "long"},
        FieldError(
            pointer="#/duration_s",
            code="type",
            message="'long' is not what it takes: it should be a valid number, unable to parse"
            " string as a number",
        ),
    ),
    (
        {"resolutoin": "480p"},
        FieldError(
            pointer="#/resolutoin",
            code="unknown_field",
            message="there is no such field; did you mean 'resolution'?",
        ),
    ),
    (
        {"x": 1},
        FieldError(
            pointer="#/x", code="unknown_field", message="there is no such field; remove it"
        ),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), WRONG_CLIPS, ids=lambda value: str(value)[:30])
def test_a_clip_of_the_wrong_types_is_refused_as_the_server_would(
    fields: dict[str, Any], expected: FieldError
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ClipRequest(prompt="a red ball", **fields)
    assert caught.value.errors == (expected,)
    assert (caught.value.code, caught.value.status) == ("invalid_request", 422)
    assert str(caught.value) == f"{expected.field}: {expected.message}"


def test_every_wrong_field_of_a_clip_is_told_at_once() -> None:
    wrong: dict[str, Any] = {"seed": "x", "lora": "acme"}
    with pytest.raises(InvalidRequest) as caught:
        ClipRequest(**wrong)
    assert [(error.field, error.code) for error in caught.value.errors] == [
        ("prompt", "required"),
        ("seed", "type"),
        ("lora", "type"),
    ]


def test_problem_details_become_fields() -> None:
    error = api_error(422, {}, json.dumps(PROBLEM).encode())
    assert isinstance(error, InvalidRequest)
    assert (error.code, error.status, error.request_id) == ("invalid_request", 422, "req_1")
    assert error.errors == (
        FieldError(pointer="#/prompt", code="max_length", message="too long", limit=200),
    )
    assert (str(error), error.errors[0].field) == ("prompt: too long", "prompt")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (409, Conflict),
        (410, NotFound),
        (413, InvalidRequest),
        (418, ApiError),
        (429, RateLimited),
        (500, ServerError),
        (503, ServerError),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[1]", b"\xff\x00"])
def test_any_body_gives_the_error_of_its_status(
    status: int, kind: type[ApiError], body: bytes
) -> None:
    error = api_error(status, {"x-request-id": "r"}, body)
    assert (type(error), error.code, error.request_id) == (kind, f"http_{status}", "r")


def test_retry_after_of_other_forms_counts_as_absent() -> None:
    assert retry_after_s({"retry-after": "3"}) == 3.0
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) is None
    assert retry_after_s({}) is None
