"""What is asked of storyboards on the server, without any I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from vidmill.client._actions import Flow, Report, Request, Sleep
from vidmill.client._calls import Calls, creating, deleting, getting, posting
from vidmill.client._errors import (
    StoryboardCancelled,
    StoryboardFailed,
    StoryboardUnfinished,
)
from vidmill.client._models import ClipOptions, changes_to_wire
from vidmill.client._sinks import Sink
from vidmill.client._storyboard_models import (
    Shot,
    Storyboard,
    StoryboardEstimate,
    StoryboardPage,
)

STORYBOARDS = "/v1/t2v/storyboards"
POLL_MAX_S = 5.0


@dataclass(frozen=True)
class StoryboardsFlows:
    """The operations, each made with *calls*."""

    calls: Calls

    def create(self, shots: Sequence[Shot], options: Mapping[str, Any]) -> Flow[Storyboard]:
        return self.calls.ask(Storyboard, creating(STORYBOARDS, _body(shots, options)))

    def estimate(
        self, shots: Sequence[Shot], options: Mapping[str, Any]
    ) -> Flow[StoryboardEstimate]:
        request = posting(f"{STORYBOARDS}/estimate", _body(shots, options))
        return self.calls.ask(StoryboardEstimate, request)

    def get(self, storyboard_id: str) -> Flow[Storyboard]:
        return self.calls.ask(Storyboard, self._getting(storyboard_id))

    def all(self) -> Flow[None]:
        return self.calls.items(StoryboardPage, STORYBOARDS)

    def replace_shot(
        self,
        storyboard_id: str,
        number: int,
        changes: ClipOptions,
        *,
        prompt: str | None,
        crossfade: float | None,
    ) -> Flow[Storyboard]:
        body = changes_to_wire(changes, prompt)
        if crossfade is not None:
            body["crossfade"] = crossfade
        return self.calls.ask(Storyboard, creating(_path(storyboard_id, f"shots/{number}"), body))

    def cancel(self, storyboard_id: str) -> Flow[Storyboard]:
        return self.calls.ask(Storyboard, posting(_path(storyboard_id, "cancel")))

    def delete(self, storyboard_id: str) -> Flow[None]:
        yield from self.calls.send(deleting(_path(storyboard_id)))

    def fetch(self, storyboard: Storyboard, variant: str, *, into: Sink) -> Flow[None]:
        """Download a file through the API, so that no link can expire."""
        file = storyboard.result.files.get(variant) if storyboard.result else None
        return self.calls.download(
            _path(storyboard.storyboard_id, "content"),
            {"variant": variant},
            into=into,
            sha256=file.sha256 if file else "",
        )

    def wait(self, storyboard_id: str, timeout_s: float | None) -> Flow[Storyboard]:
        """Report each change until the whole is joined, across restarts of the server.

        Raises:
            StoryboardFailed: It failed; StoryboardCancelled: somebody cancelled it.
            StoryboardUnfinished: *timeout_s* passed first; it goes on.
        """
        deadline_s = float("inf") if timeout_s is None else self.calls.clock() + timeout_s
        pause_s, known = self.calls.poll_s, None
        while True:
            outage_s = self.calls.patience.outage_s
            reply = yield from self.calls.send(
                self._getting(storyboard_id), unreachable_s=outage_s if known else None
            )
            board = Storyboard.model_validate_json(reply.body)
            if board != known:
                known = board
                yield Report(board)
            if board.state == "completed":
                return board
            if board.is_over:
                raise _ended(board)
            left_s = deadline_s - self.calls.clock()
            if left_s <= 0:
                said = f"storyboard {storyboard_id} was not joined in time; it goes on"
                raise StoryboardUnfinished(said, board)
            yield Sleep(min(pause_s, left_s))
            pause_s = min(POLL_MAX_S, pause_s * 1.5)

    def _getting(self, storyboard_id: str) -> Request:
        return getting(_path(storyboard_id))


def _ended(board: Storyboard) -> StoryboardFailed:
    if board.state == "cancelled":
        return StoryboardCancelled(f"storyboard {board.storyboard_id} was cancelled", board)
    why = board.error.message if board.error else board.state
    return StoryboardFailed(f"storyboard {board.storyboard_id}: {why}", board)


def _body(shots: Sequence[Shot], options: Mapping[str, Any]) -> dict[str, Any]:
    stated = {name: value for name, value in options.items() if value is not None}
    return {"shots": [{"prompt": s} if isinstance(s, str) else s for s in shots], **stated}


def _path(storyboard_id: str, part: str = "") -> str:
    return f"{STORYBOARDS}/{quote(storyboard_id, safe='')}" + (f"/{part}" if part else "")
