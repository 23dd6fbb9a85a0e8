"""What an answer of the server becomes."""

import json

import pytest

from vidmill.client import (
    ApiError,
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
