"""A world for flows to ask, which answers as it was told: no network, no clock, no sleeping."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from vidmill.client import ConnectionLost, ServerUnreachable
from vidmill.client._actions import Flow, Open, Read, Reply, Report, Send, Sleep
from vidmill.client._flows import Flows

T = TypeVar("T")

REFUSED = ServerUnreachable("refused")
LOST = ConnectionLost("reset")
STREAM = Reply(status=200, headers={"content-type": "text/event-stream"})


class Script:
    """A world that answers as it was told, and keeps what was asked. Sleeping moves its clock."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self._answers = list(answers)
        self._pieces: list[Any] = []
        self.now = 0.0
        self.asked: list[Any] = []
        self.slept: list[float] = []
        self.reported: list[Any] = []

    def flows(self, **changes: Any) -> Flows:
        return Flows(clock=lambda: self.now, jitter=lambda: 0.5, **changes)

    def run(self, flow: Flow[T]) -> T:
        try:
            action = flow.send(None)
            while True:
                outcome = self._perform(action)
                if isinstance(outcome, Exception):
                    action = flow.throw(outcome)
                else:
                    action = flow.send(outcome)
        except StopIteration as stop:
            assert self._answers == [], "not all answers were asked for"
            value: T = stop.value
            return value

    def _perform(self, action: object) -> object:
        match action:
            case Sleep(seconds):
                self.slept.append(seconds)
                self.now += seconds
                return None
            case Report(news):
                self.reported.append(news)
                return None
            case Send(request):
                self.asked.append(request)
                return self._answers.pop(0)
            case Open(request, _):
                self.asked.append(request)
                answer = self._answers.pop(0)
                if isinstance(answer, Exception):
                    return answer
                reply, *self._pieces = answer
                return reply
            case Read():
                return self._pieces.pop(0) if self._pieces else None
        raise AssertionError(action)


def ok(doc: Any) -> Reply:
    return Reply(status=200, headers={}, body=json.dumps(doc).encode())


def no(status: int, code: str = "busy", **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"code": code, "detail": "later"}).encode()
    return Reply(status=status, headers=names, body=body)


def task(status: str = "queued", **more: Any) -> dict[str, Any]:
    return {"task_id": "t2v_1", "status": status, **more}


def event(number: int, doc: dict[str, Any]) -> bytes:
    data = json.dumps({"seq": number, "type": "x", "data": doc})
    return f"id: 1.{number}\nevent: x\ndata: {data}\n\n".encode()
