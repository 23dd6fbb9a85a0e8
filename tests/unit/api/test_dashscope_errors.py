"""How DashScope's clients are told of errors: by what each of them does with an answer."""

import pytest

from vidmill.api.dialects.dashscope_errors import DASHSCOPE
from vidmill.api.errors import Asked
from vidmill.domain import errors

SUBMIT = Asked("POST", "/api/v1/services/aigc/video-generation/video-synthesis", "req_1")
POLL = Asked("GET", "/api/v1/tasks/0", "req_1")


def test_a_poll_is_never_answered_429() -> None:
    error = errors.RateLimited("too many", retry_after_s=7.0)

    submit, poll = DASHSCOPE.look(error, SUBMIT), DASHSCOPE.look(error, POLL)

    assert (submit.status, submit.body["code"]) == (429, "Throttling.RateQuota")
    assert (poll.status, poll.body["code"]) == (503, "ServiceUnavailable")
    assert submit.headers["Retry-After"] == poll.headers["Retry-After"] == "7"


def test_a_used_up_quota_is_not_asked_for_again() -> None:
    look = DASHSCOPE.look(errors.QuotaExceeded("used up"), SUBMIT)

    assert (look.status, look.body["code"]) == (429, "Throttling.AllocationQuota")
    assert look.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("kind", [errors.InternalError, errors.StorageFailed])
def test_a_mishap_of_ours_is_an_internal_error(kind: type[errors.VidmillError]) -> None:
    look = DASHSCOPE.look(kind("oops"), POLL)

    assert (look.status, look.body) == (
        500,
        {"request_id": "req_1", "code": "InternalError", "message": "oops"},
    )
