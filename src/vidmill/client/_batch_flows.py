"""What is asked of batches on the server, without any I/O."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vidmill.client._actions import Flow, Open, Read, Reply, Report, Sleep
from vidmill.client._batch_models import (
    Accept,
    Batch,
    BatchPage,
    BatchResult,
    BatchRowPage,
    BatchVerdict,
    RowFilter,
)
from vidmill.client._calls import (
    SILENCE_S,
    TRANSIENT,
    Calls,
    creating,
    deleting,
    getting,
    posting,
)
from vidmill.client._errors import ApiError, BatchUnfinished, TransportError, api_error
from vidmill.client._models import ClipRequest
from vidmill.client._sinks import Sink

BATCHES = "/v1/t2v/batches"

Row = ClipRequest | Mapping[str, Any]
"""A clip, or its fields as the API has them and `custom_id`, your name for it."""

MEDIA_TYPES: Mapping[str, str] = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/csv",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
}

POLL_MAX_S = 5.0
"""A batch takes minutes: looks at it may grow rarer."""


@dataclass(frozen=True)
class BatchesFlows:
    """The operations, each made with *calls*."""

    calls: Calls

    def create(
        self, rows: Sequence[Row], options: Mapping[str, Any], *, confirm: bool
    ) -> Flow[BatchVerdict]:
        items = [row.to_wire() if isinstance(row, ClipRequest) else dict(row) for row in rows]
        query = {"confirm": "true"} if confirm else {}
        body = {"items": items, **_stated(options)}
        return self.calls.ask(BatchVerdict, creating(BATCHES, body, query=query))

    def upload(
        self, path: Path, options: Mapping[str, Any], *, confirm: bool
    ) -> Flow[BatchVerdict]:
        media_type = MEDIA_TYPES.get(path.suffix.lower())
        if media_type is None:
            known = ", ".join(MEDIA_TYPES)
            raise ValueError(f"{path.name}: the ending says how to read it; use one of {known}")
        stated = _stated(options)
        texts = {name: v if isinstance(v, str) else json.dumps(v) for name, v in stated.items()}
        request = creating(BATCHES, query=texts | ({"confirm": "true"} if confirm else {}))
        headers = {**request.headers, "Content-Type": media_type}
        return self.calls.ask(
            BatchVerdict, replace(request, headers=headers, content=path.read_bytes())
        )

    def confirm(self, batch_id: str, accept: Accept) -> Flow[Batch]:
        return self.calls.ask(Batch, creating(_path(batch_id, "confirm"), {"accept": accept}))

    def change(self, batch_id: str, change: str) -> Flow[Batch]:
        """Ask for a change that comes to the same when it is asked for twice."""
        return self.calls.ask(Batch, posting(_path(batch_id, change)))

    def rerun_failed(self, batch_id: str) -> Flow[Batch]:
        return self.calls.ask(Batch, creating(_path(batch_id, "rerun-failed")))

    def get(self, batch_id: str) -> Flow[Batch]:
        return self.calls.ask(Batch, getting(_path(batch_id)))

    def all(self) -> Flow[None]:
        return self.calls.items(BatchPage, BATCHES)

    def rows(self, batch_id: str, status: RowFilter | None) -> Flow[None]:
        query = {"status": status} if status else {}
        return self.calls.items(BatchRowPage, _path(batch_id, "rows"), query)

    def delete(self, batch_id: str) -> Flow[None]:
        yield from self.calls.send(deleting(_path(batch_id)))

    def archive(self, batch_id: str, sink: Sink) -> Flow[None]:
        return self.calls.download(_path(batch_id, "archive"), {}, into=sink, sha256="")

    def wait(self, batch_id: str, timeout_s: float | None) -> Flow[Batch]:
        """Report each change of a batch until it is over, across restarts of the server.

        Raises:
            BatchUnfinished: *timeout_s* passed first, or it was never confirmed.
        """
        deadline_s = float("inf") if timeout_s is None else self.calls.clock() + timeout_s
        pause_s, known = self.calls.poll_s, None
        while True:
            outage_s = self.calls.patience.outage_s
            reply = yield from self.calls.send(
                getting(_path(batch_id)), unreachable_s=outage_s if known else None
            )
            batch = Batch.model_validate_json(reply.body)
            if batch != known:
                known = batch
                yield Report(batch)
            if batch.is_over:
                return batch
            if batch.state == "checked":
                raise BatchUnfinished(f"batch {batch_id} waits to be confirmed", batch)
            left_s = deadline_s - self.calls.clock()
            if left_s <= 0:
                raise BatchUnfinished(f"batch {batch_id} was not over in time; it goes on", batch)
            yield Sleep(min(pause_s, left_s))
            pause_s = min(POLL_MAX_S, pause_s * 1.5)

    def results(self, batch_id: str) -> Flow[None]:
        """Report each row that is over, once, over dropped connections.

        Raises:
            ApiError, TransportError: As any call.
        """
        seen: set[int] = set()
        waited_s, tries = 0.0, 0
        while True:
            tries, before = tries + 1, len(seen)
            try:
                yield from self._result_lines(batch_id, seen)
                break
            except (TransportError, ApiError) as error:
                tries = 1 if len(seen) > before else tries
                is_final = isinstance(error, ApiError) and error.status not in TRANSIENT
                delay_s = self.calls.delay_s(error, tries)
                if is_final or waited_s + delay_s > self.calls.patience.busy_s:
                    raise
            waited_s += delay_s
            yield Sleep(delay_s)

    def _result_lines(self, batch_id: str, seen: set[int]) -> Flow[None]:
        reply: Reply = yield Open(getting(_path(batch_id, "results")), SILENCE_S)
        if reply.is_refusal:
            raise api_error(reply.status, reply.headers, reply.body)
        rest = b""
        while (piece := (yield Read())) is not None:
            *lines, rest = (rest + piece).split(b"\n")
            for line in filter(None, lines):
                result = BatchResult.model_validate_json(line)
                if result.line not in seen:
                    seen.add(result.line)
                    yield Report(result)


def _path(batch_id: str, part: str = "") -> str:
    return f"{BATCHES}/{quote(batch_id, safe='')}" + (f"/{part}" if part else "")


def _stated(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
