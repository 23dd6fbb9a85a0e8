"""Probes and metrics: is the process alive, can tasks be worked on, and how much is there to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from vidmill.api import metrics
from vidmill.api.answers import NO_STORE, JsonBytes, json_answer
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_models as models
from vidmill.api.edge import header
from vidmill.api.metrics import Samples
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.errors import PermissionDenied, ServiceUnavailable, Unauthorized
from vidmill.services.joining import Outcome
from vidmill.store import breakers, deliveries, gauges, workers
from vidmill.store.breakers import Breaker
from vidmill.store.session import Connection
from vidmill.store.workers import Worker, WorkerState

PROBE_S = 2.0
"""A probe answers within that, whatever the database does; who asks often gives up after 3 s."""

_OPENNESS: Mapping[str, float] = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


@dataclass(frozen=True)
class Health:
    desk: Desk

    async def livez(self, _request: Request) -> Response:
        return json_answer({"status": "ok"})

    async def readyz(self, _request: Request) -> Response:
        db, pool = self.desk.app.db, self.desk.app.settings.pool

        def look(conn: Connection) -> tuple[list[Worker], list[Breaker]]:
            live = workers.all_workers(conn, now=db.now(), pool=pool)
            return live, list(breakers.all_breakers(conn))

        try:
            live, resting = await self.desk.reads.run(lambda: db.read(look), within_s=PROBE_S)
        except ServiceUnavailable as error:
            checks = [_check("database", is_ok=False, detail=str(error))]
        else:
            checks = [
                _check("database", is_ok=True, detail="answers"),
                _worker_check(live),
                *_breaker_checks(resting, pool),
            ]
        is_ready = all(check["ok"] for check in checks)
        doc = {"status": "ready" if is_ready else "starting", "checks": checks}
        headers = {} if is_ready else {"Retry-After": "1"}
        return json_answer(doc, status=200 if is_ready else 503, headers=headers)

    async def metrics(self, request: Request) -> Response:
        """Answer in the text format of Prometheus, to those who may see it."""
        self._refuse_strangers(request)
        try:
            found = await self.desk.reads.run(
                lambda: self.desk.app.db.read(self._read), within_s=PROBE_S
            )
            found = {"vidmill_database_up": {(): 1.0}, **found}
        except ServiceUnavailable:
            found = {"vidmill_database_up": {(): 0.0}}
        body = metrics.page({**self._own(), **found}, self.desk.meter)
        answer = JsonBytes(b"", 200, [NO_STORE])
        answer.body = body
        answer.raw_headers += [
            (b"content-type", metrics.CONTENT_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        return answer

    def _refuse_strangers(self, request: Request) -> None:
        token = self.desk.app.settings.metrics_token.get_secret_value()
        client = request.client.host if request.client else ""
        if metrics.may_read(token, header(request, b"authorization"), client):
            return
        if token:
            raise Unauthorized("send the header `Authorization: Bearer <VIDMILL_METRICS_TOKEN>`")
        raise PermissionDenied("set VIDMILL_METRICS_TOKEN to read the metrics from elsewhere")

    def _own(self) -> dict[str, Samples]:
        load, following, joins = self.desk.load, self.desk.following, self.desk.app.joins
        return {
            "vidmill_http_requests_in_flight": {(): load.in_flight},
            "vidmill_http_requests_refused_total": {(): load.num_refused},
            "vidmill_watchers": {(): following.num_watchers},
            "vidmill_webhook_attempts_total": {
                (outcome,): number
                for outcome, number in self.desk.app.webhook_outcomes.copy().items()
            },
            "vidmill_storyboard_joins_total": {(o,): joins.attempts[o] for o in Outcome},
            "vidmill_storyboard_join_seconds_total": {
                (o,): joins.seconds.get(o, 0) for o in Outcome
            },
        }

    def _read(self, conn: Connection) -> dict[str, Samples]:
        now = self.desk.app.db.now()
        lanes = gauges.queues(conn)
        by_lane = {(lane.pool, lane.lane.name.lower()): lane for lane in lanes}
        gpu_s: dict[tuple[str, ...], float] = {}
        for lane in lanes:
            gpu_s[lane.pool,] = gpu_s.get((lane.pool,), 0.0) + lane.queued_cost_s
        return {
            "vidmill_queue_depth": {key: lane.queued for key, lane in by_lane.items()},
            "vidmill_queue_oldest_seconds": {
                key: 0.0 if lane.oldest_at is None else max(0.0, now - lane.oldest_at)
                for key, lane in by_lane.items()
            },
            "vidmill_queue_gpu_seconds": gpu_s,
            "vidmill_webhook_oldest_seconds": {
                (): max(0.0, now - (deliveries.oldest_due(conn) or now))
            },
            "vidmill_storyboards": gauges.storyboards_by_state(conn),
            "vidmill_storyboard_oldest_seconds": {
                (): max(0.0, now - (gauges.joining_since(conn) or now))
            },
            "vidmill_workers": gauges.workers_by_state(conn, now=now),
            "vidmill_breaker_open": {
                (breaker.pool, breaker.profile): _OPENNESS[breaker.state]
                for breaker in breakers.all_breakers(conn)
            },
        }


def health_routes(desk: Desk) -> Sequence[Route]:
    health = Health(desk)
    return (
        Route(
            method="GET",
            path="/livez",
            handler=health.livez,
            summary="Is the process alive",
            permission=None,
            answers={200: Answer(description="Yes.", model=models.Alive)},
            tag="health",
        ),
        Route(
            method="GET",
            path="/readyz",
            handler=health.readyz,
            summary="Are tasks worked on, and what is still loading or resting",
            permission=None,
            answers={
                200: Answer(description="Ready.", model=models.Readiness),
                503: Answer(description="Something is missing.", model=models.Readiness),
            },
            tag="health",
        ),
        Route(
            method="GET",
            path="/metrics",
            handler=health.metrics,
            summary="Metrics for Prometheus; docs/metrics.md lists them",
            permission=None,
            answers={200: Answer(description="The metrics.", media_type="text/plain")},
            errors=(errors.Unauthorized, errors.PermissionDenied),
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


def _breaker_checks(found: Sequence[Breaker], pool: str) -> list[dict[str, object]]:
    """Return a check for each engine that is not trusted; other pools' rests hold up nobody."""
    return [
        _check(
            f"breaker {breaker.pool}/{breaker.profile}",
            is_ok=breaker.pool != pool,
            detail=f"{breaker.state}: {breaker.reason}",
        )
        for breaker in found
        if breaker.state != "closed"
    ]


def _check(name: str, *, is_ok: bool, detail: str) -> dict[str, object]:
    return {"name": name, "ok": is_ok, "detail": detail}
