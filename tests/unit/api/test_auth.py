"""Keys are looked up once and remembered briefly."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from starlette.requests import Request

from tests.builders import FakeClock
from tests.callers import make_caller
from vidmill.api.auth import REMEMBERED_S, Gate
from vidmill.api.waiting import Reads
from vidmill.domain.errors import Unauthorized
from vidmill.services.access import Caller, hash_key

CALLER = make_caller()


def request(authorization: bytes | None) -> Any:
    headers = {} if authorization is None else {b"authorization": authorization}
    return Request({"type": "http", "headers": [], "header_map": headers})


class NoDatabase:
    is_remote = False


def make_gate(find: Callable[[str], Caller | None], **given: Any) -> Gate:
    return Gate(find, reads=Reads(cast("Any", NoDatabase()), threads=1), **given)


def admit(gate: Gate, asked: Request) -> Caller:
    return asyncio.run(gate.admit(asked))


class Keys:
    """Knows one key and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.known = {hash_key("right")}

    def find(self, key_hash: str) -> Any:
        self.asked += 1
        return CALLER if key_hash in self.known else None


@pytest.mark.parametrize("header", [b"Bearer right", b"bearer right", b"BEARER   right "])
def test_the_right_key_is_let_in(header: Any) -> None:
    assert admit(make_gate(Keys().find), request(header)) == CALLER


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"right",
        b"Basic cmlnaHQ=",
        b"Bearer",
        b"Bearer wrong",
        b"Bearer right right",
        "Bearer schlüssel".encode("latin-1"),
        b"Bearer " + b"x" * 5000,
    ],
)
def test_anything_else_is_not(header: Any) -> None:
    with pytest.raises(Unauthorized):
        admit(make_gate(Keys().find), request(header))


def test_a_key_is_looked_up_once_while_it_is_remembered() -> None:
    keys, clock = Keys(), FakeClock()
    gate = make_gate(keys.find, clock=clock)

    for _ in range(3):
        admit(gate, request(b"Bearer right"))

    assert keys.asked == 1


def test_a_revoked_key_stops_working_when_it_is_forgotten() -> None:
    keys, clock = Keys(), FakeClock()
    gate = make_gate(keys.find, clock=clock)
    admit(gate, request(b"Bearer right"))
    keys.known.clear()
    clock.advance(REMEMBERED_S + 0.1)

    with pytest.raises(Unauthorized):
        admit(gate, request(b"Bearer right"))


def test_a_wrong_key_is_never_remembered() -> None:
    keys = Keys()
    gate = make_gate(keys.find)
    for _ in range(2):
        with pytest.raises(Unauthorized):
            admit(gate, request(b"Bearer new"))
    keys.known.add(hash_key("new"))

    assert admit(gate, request(b"Bearer new")) == CALLER
