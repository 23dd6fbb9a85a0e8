"""The receivers in `examples`, as programs, fed by our own sender."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from vidmill.domain.webhook import Reply, secret_text
from vidmill.outbound.guard import Guard
from vidmill.outbound.sender import Sender
from vidmill.outbound.signing import headers

EXAMPLES = Path(__file__).parents[3] / "examples"
KEY, OLD_KEY, OTHER_KEY = b"k" * 32, b"o" * 32, b"x" * 32
BODY = '{"type":"t2v.task.completed","data":{"prompt":"红色的球"}}'.encode()
SAID = 't2v.task.completed {"prompt": "红色的球"}'


@dataclass(frozen=True)
class Program:
    """A receiver that runs, whose output is `process.stdout`."""

    url: str
    process: subprocess.Popen[str]

    def next_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


COMMANDS = {
    "python": [sys.executable, str(EXAMPLES / "webhook_receiver.py"), "0"],
    "node": ["node", str(EXAMPLES / "webhook_receiver.mjs"), "0"],
}


@pytest.fixture(params=COMMANDS)
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    command = COMMANDS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} on this machine")
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={"VIDMILL_WEBHOOK_SECRET": f"{secret_text(KEY)} {secret_text(OLD_KEY)}"},
    )
    assert process.stdout is not None
    with process:
        yield Program(process.stdout.readline().split()[-1], process)
        process.kill()


def send(program: Program, *keys: bytes, message_id: str = "msg_1") -> Reply:
    guard = Guard(allow=["127.0.0.1"], is_http_allowed=True, resolve=lambda host: [host])
    sender = Sender(guard, clock=time.time)
    return asyncio.run(sender.send(program.url, message_id=message_id, body=BODY, keys=keys))


def post(program: Program, body: bytes, given: dict[str, str]) -> int:
    return httpx2.post(program.url, content=body, headers=given).status_code


def test_event_of_ours_is_accepted_and_dealt_with(program: Program) -> None:
    assert send(program, KEY).status == 204
    assert program.next_line().replace('":"', '": "') == SAID


def test_event_that_comes_twice_is_dealt_with_once(program: Program) -> None:
    statuses = [send(program, KEY, message_id=name).status for name in ("msg_1", "msg_1", "msg_2")]
    lines = [program.next_line() for _ in range(2)]
    program.process.kill()
    assert (statuses, len(lines), program.next_line()) == ([204, 204, 204], 2, "")


@pytest.mark.parametrize("keys", [(OLD_KEY,), (OTHER_KEY, OLD_KEY)])
def test_either_secret_will_do_while_one_is_rotated(
    program: Program, keys: tuple[bytes, ...]
) -> None:
    assert send(program, *keys).status == 204


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (BODY + b" ", {}),
        (BODY, {"webhook-id": "msg_2"}),
        (BODY, {"webhook-signature": "v1,AAAA"}),
        (BODY, {"webhook-timestamp": "soon"}),
    ],
)
def test_what_was_not_signed_so_is_refused(
    program: Program, body: bytes, changed: dict[str, str]
) -> None:
    genuine = headers([KEY], message_id="msg_1", timestamp=int(time.time()), body=BODY)
    assert post(program, body, {**genuine, **changed}) == 401


def test_old_event_is_refused(program: Program) -> None:
    old = headers([KEY], message_id="msg_1", timestamp=int(time.time()) - 400, body=BODY)
    assert post(program, BODY, old) == 401


def test_request_without_a_signature_is_refused(program: Program) -> None:
    assert post(program, BODY, {}) == 401
