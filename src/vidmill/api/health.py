"""Probes: is the process alive, and can tasks be worked on."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from vidmill.api.answers import json_answer
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_models as models
from vidmill.api.routing import Answer, Route
from vidmill.domain.errors import ServiceUnavailable
from vidmill.store import workers
from vidmill.store.workers import Worker, WorkerState


@dataclass(frozen=True)
class Health:
    desk: Desk

    async def livez(self, _request: Request) -> Response:
        return json_answer({"status": "ok"})

    def readyz(self, _request: Request) -> Response:
        db, pool = self.desk.app.db, self.desk.app.settings.pool
        try:
            live = db.read(lambda conn: workers.all_workers(conn, now=db.now(), pool=pool))
        except ServiceUnavailable as error:
            checks = [_check("database", is_ok=False, detail=str(error))]
        else:
            checks = [_check("database", is_ok=True, detail="answers"), _worker_check(live)]
        is_ready = all(check["ok"] for check in checks)
        doc = {"status": "ready" if is_ready else "starting", "checks": checks}
        headers = {} if is_ready else {"Retry-After": "1"}
        return json_answer(doc, status=200 if is_ready else 503, headers=headers)


def health_routes(desk: Desk) -> Sequence[Route]:
    health = Health(desk)
    return (
        Route(
            method="GET",
            path="/livez",
            handler=health.livez,
            summary="Is the process alive",
            answers={200: Answer(description="Yes.")},
            is_open=True,
            tag="health",
        ),
        Route(
            method="GET",
            path="/readyz",
            handler=health.readyz,
            summary="Are tasks worked on, and what is still loading",
            answers={
                200: Answer(description="Ready.", model=models.Readiness),
                503: Answer(description="Something is missing.", model=models.Readiness),
            },
            is_open=True,
            tag="health",
        ),
    )


def _worker_check(live: Sequence[Worker]) -> dict[str, object]:
    ready = [worker for worker in live if worker.state is WorkerState.READY]
    if ready:
        return _check("worker", is_ok=True, detail=f"{len(ready)} ready, model warm")
    if not live:
        return _check("worker", is_ok=False, detail="no worker has reported yet")
    states = "; ".join(worker.detail or worker.state for worker in live)
    return _check("worker", is_ok=False, detail=states)


def _check(name: str, *, is_ok: bool, detail: str) -> dict[str, object]:
    return {"name": name, "ok": is_ok, "detail": detail}
