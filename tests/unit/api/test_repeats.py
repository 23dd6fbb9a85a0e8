"""Keyed requests that this process is working on."""

import pytest

from tests.callers import make_caller
from vidmill.api.repeats import UnderWay
from vidmill.domain.errors import IdempotencyInProgress
from vidmill.services.idempotency import IdempotencyKey

KEY = IdempotencyKey(key="k", fingerprint="f")


def test_a_second_request_under_a_key_is_refused_until_the_first_is_answered() -> None:
    under_way = UnderWay()
    with under_way.alone(make_caller(1), KEY):
        with pytest.raises(IdempotencyInProgress), under_way.alone(make_caller(1), KEY):
            pytest.fail("both were let in")
        with under_way.alone(make_caller(2), KEY):
            """Another tenant's key of that name is another key."""
    with under_way.alone(make_caller(1), KEY):
        """It is free again."""


def test_a_request_that_fails_gives_its_key_back() -> None:
    under_way = UnderWay()
    with pytest.raises(ZeroDivisionError), under_way.alone(make_caller(1), KEY):
        raise ZeroDivisionError
    with under_way.alone(make_caller(1), KEY):
        """It is free again."""


def test_requests_without_a_key_never_meet() -> None:
    under_way = UnderWay()
    with under_way.alone(make_caller(1), None), under_way.alone(make_caller(1), None):
        """Both are let in."""
