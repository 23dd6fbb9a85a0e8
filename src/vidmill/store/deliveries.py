"""The outbox of webhooks: what is due, what came of each attempt, and telling it once more."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, select, text, update

from vidmill.domain.webhook import DeliveryState, EventType, Reply, Verdict
from vidmill.store.models import jobs
from vidmill.store.unit import UnitOfWork
from vidmill.store.webhook_tables import webhook_deliveries as deliveries
from vidmill.store.webhook_tables import webhook_endpoints as endpoints
from vidmill.store.webhooks import Endpoint, new_message_id, to_endpoint

KEPT_S = 30 * 86_400.0
"""How long the log remembers a delivery."""

FORGOTTEN_AT_ONCE = 500
LOG_AT_ONCE = 5000
"""Deliveries of a deleted endpoint that go in one transaction: 70 ms of SQLite's writer."""

LOG_MAX = 20
"""Attempts told of one delivery: two whole rounds."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event for one endpoint. Its public id is the `webhook-id` of every attempt.

    Attributes:
        subject: Public id of the task or batch it is about.
        url: Where to, where the endpoint has no URL of its own.
        attempts: Begun so far; those from `round_start` on count towards giving up.
        log: Of each attempt `attempt`, `at`, `status`, `error` and `took_s`, the oldest first.
    """

    id: int
    public_id: str
    endpoint_id: int
    tenant_id: int
    type: EventType
    subject: str
    url: str | None
    state: DeliveryState
    attempts: int
    round_start: int
    due_at: float
    created_at: float
    ended_at: float | None
    log: list[dict[str, Any]]

    @property
    def tries(self) -> int:
        """Which attempt of its round this is."""
        return self.attempts - self.round_start


_IS_PENDING = deliveries.c.state == text("'pending'")
"""With the literal: SQLite uses a partial index for nothing else."""

_IS_ANY_DUE = select(exists().where(_IS_PENDING, deliveries.c.due_at <= bindparam("now")))
_READY = (
    select(endpoints)
    .where(
        endpoints.c.is_enabled,
        func.coalesce(endpoints.c.rest_until, 0) <= bindparam("now"),
        exists().where(
            deliveries.c.endpoint_id == endpoints.c.id,
            _IS_PENDING,
            deliveries.c.due_at <= bindparam("now"),
        ),
    )
    .order_by(func.random())  # each has its turn, however long another's queue is
    .limit(bindparam("most"))
)
_NEXT = (
    select(deliveries.c.id)
    .where(
        deliveries.c.endpoint_id == bindparam("endpoint"),
        _IS_PENDING,
        deliveries.c.due_at <= bindparam("now"),
    )
    .order_by(deliveries.c.due_at, deliveries.c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)


def ready(conn: Connection, *, now: float, limit: int) -> list[Endpoint]:
    """Return endpoints for which something is due, in random order."""
    if not conn.execute(_IS_ANY_DUE, {"now": now}).scalar():
        return []
    return [to_endpoint(row) for row in conn.execute(_READY, {"now": now, "most": limit})]


def take(uow: UnitOfWork, endpoint_id: int, *, limit: int, lease_s: float) -> list[Delivery]:
    """Begin an attempt at what is due longest; untold after *lease_s*, it is due again."""
    asked = {"endpoint": endpoint_id, "now": uow.now, "most": limit}
    ids = uow.conn.execute(_NEXT, asked).scalars().all()
    if not ids:
        return []
    begun = update(deliveries).where(deliveries.c.id.in_(ids))
    begun = begun.values(attempts=deliveries.c.attempts + 1, due_at=uow.now + lease_s)
    return [_delivery(row) for row in uow.conn.execute(begun.returning(*deliveries.c))]


def settle(uow: UnitOfWork, delivery: Delivery, reply: Reply, verdict: Verdict) -> bool:
    """Record what came of the attempt that *delivery* began; False if another one began since."""
    entry = {
        "attempt": delivery.attempts,
        "at": round(uow.now, 3),
        "status": reply.status,
        "error": reply.error,
        "took_s": round(reply.took_s, 3),
    }
    is_over = verdict.state is not DeliveryState.PENDING
    query = update(deliveries).where(
        deliveries.c.id == delivery.id, deliveries.c.attempts == delivery.attempts
    )
    told = query.values(
        state=verdict.state,
        due_at=uow.now + verdict.delay_s,
        ended_at=uow.now if is_over else None,
        log=[*delivery.log, entry][-LOG_MAX:],
    )
    return bool(uow.conn.execute(told).rowcount)


def add_test(
    uow: UnitOfWork, endpoint: Endpoint, event_type: EventType, *, lease_s: float
) -> Delivery:
    """Begin the one attempt at a delivery that whoever asks makes himself."""
    values = {
        "public_id": new_message_id(),
        "endpoint_id": endpoint.id,
        "tenant_id": endpoint.tenant_id,
        "type": event_type,
        "subject": endpoint.public_id,
        "attempts": 1,
        "due_at": uow.now + lease_s,
        "created_at": uow.now,
    }
    query = deliveries.insert().values(values).returning(*deliveries.c)
    return _delivery(uow.conn.execute(query).one())


def find(conn: Connection, endpoint_id: int, public_id: str) -> Delivery | None:
    query = select(deliveries).where(
        deliveries.c.public_id == public_id, deliveries.c.endpoint_id == endpoint_id
    )
    row = conn.execute(query).first()
    return None if row is None else _delivery(row)


def page(
    conn: Connection,
    endpoint_id: int,
    *,
    limit: int,
    after: int | None = None,
    state: DeliveryState | None = None,
) -> list[Delivery]:
    """Return up to *limit* deliveries, the newest first; *after* ends the page before."""
    query = select(deliveries).where(deliveries.c.endpoint_id == endpoint_id)
    if after is not None:
        query = query.where(deliveries.c.id < after)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    found = conn.execute(query.order_by(deliveries.c.id.desc()).limit(limit))
    return [_delivery(row) for row in found]


_ANEW: dict[str, Any] = {
    "state": DeliveryState.PENDING,
    "due_at": bindparam("now"),
    "round_start": deliveries.c.attempts,
    "ended_at": None,
}


def redeliver(uow: UnitOfWork, delivery_id: int) -> Delivery | None:
    """Make a delivery due now, for a new round of attempts under the same id; None if gone."""
    anew = update(deliveries).where(deliveries.c.id == delivery_id).values(_ANEW)
    row = uow.conn.execute(anew.returning(*deliveries.c), {"now": uow.now}).first()
    return None if row is None else _delivery(row)


def redeliver_since(
    uow: UnitOfWork,
    endpoint_id: int,
    *,
    since: float,
    types: Collection[EventType],
    limit: int,
) -> list[float]:
    """Make the oldest *limit* deliveries from *since* on due; return when they were made."""
    chosen = (
        select(deliveries.c.id)
        .where(
            deliveries.c.endpoint_id == endpoint_id,
            deliveries.c.created_at >= since,
            deliveries.c.type.in_(types),
        )
        .order_by(deliveries.c.created_at, deliveries.c.id)
        .limit(limit)
    )
    anew = update(deliveries).where(deliveries.c.id.in_(chosen)).values(_ANEW)
    made = uow.conn.execute(anew.returning(deliveries.c.created_at), {"now": uow.now})
    return sorted(made.scalars())


_TOLD_AS = {
    EventType.TASK_COMPLETED: ("succeeded",),
    EventType.TASK_FAILED: ("failed",),
    EventType.TASK_CANCELLED: ("cancelled",),
    EventType.VIDEO_COMPLETED: ("succeeded",),
    EventType.VIDEO_FAILED: ("failed", "cancelled"),
}
"""Final states of jobs by what the triggers tell of them."""


def untold(
    conn: Connection,
    endpoint: Endpoint,
    *,
    since: float,
    types: Collection[EventType],
    limit: int,
) -> list[tuple[EventType, str, float]]:
    """Return what ended from *since* on unknown to the endpoint: type, public id, instant."""
    found: list[tuple[EventType, str, float]] = []
    for event_type in types:
        for states in (_TOLD_AS[event_type],) if event_type in _TOLD_AS else ():
            query = _ended(endpoint, event_type, states, since).limit(limit)
            found += [(event_type, row.public_id, row.finished_at) for row in conn.execute(query)]
    return sorted(found, key=lambda event: event[2])[:limit]


def add(
    uow: UnitOfWork, endpoint: Endpoint, events: Sequence[tuple[EventType, str, float]]
) -> None:
    """Let the endpoint be told of *events*, as `untold` returns them."""
    rows = [
        {
            "public_id": new_message_id(),
            "endpoint_id": endpoint.id,
            "tenant_id": endpoint.tenant_id,
            "type": event_type,
            "subject": subject,
            "due_at": uow.now,
            "created_at": at,
        }
        for event_type, subject, at in events
    ]
    if rows:
        uow.conn.execute(deliveries.insert(), rows)


def forgettable(conn: Connection, *, now: float) -> list[int]:
    """Return some of what is older than `KEPT_S`, or was for an endpoint that is gone."""
    is_orphan = ~exists().where(endpoints.c.id == deliveries.c.endpoint_id)
    found: list[int] = []
    for condition in (deliveries.c.created_at < now - KEPT_S, is_orphan):
        query = select(deliveries.c.id).where(condition).limit(FORGOTTEN_AT_ONCE)
        found += conn.execute(query).scalars()
    return found


def forget(uow: UnitOfWork, ids: Collection[int]) -> None:
    uow.conn.execute(delete(deliveries).where(deliveries.c.id.in_(ids)))


def forget_log(uow: UnitOfWork, endpoint_id: int) -> int:
    """Delete the oldest part of an endpoint's log, and what it was not told yet; return how much.

    A month's log of a busy tenant is millions of rows: deleted at once they would hold up SQLite's
    writers for half a minute, and take PostgreSQL longer than a statement may.
    """
    oldest = select(deliveries.c.id).where(deliveries.c.endpoint_id == endpoint_id)
    part = oldest.order_by(deliveries.c.id).limit(LOG_AT_ONCE)
    return uow.conn.execute(delete(deliveries).where(deliveries.c.id.in_(part))).rowcount


def oldest_due(conn: Connection) -> float | None:
    """Return since when something is due that could go out; None = nothing waits."""
    first = (
        select(func.min(deliveries.c.due_at))
        .where(deliveries.c.endpoint_id == endpoints.c.id, _IS_PENDING)
        .scalar_subquery()
    )
    oldest = conn.execute(select(func.min(first)).where(endpoints.c.is_enabled)).scalar()
    return None if oldest is None else float(oldest)


def _ended(
    endpoint: Endpoint, event_type: EventType, states: Sequence[str], since: float
) -> Select[tuple[str, float | None]]:
    is_told = exists().where(
        deliveries.c.subject == jobs.c.public_id,
        deliveries.c.endpoint_id == endpoint.id,
        deliveries.c.type == event_type,
        deliveries.c.created_at >= since,  # it is dated as the end: older ones need not be read
    )
    return (
        select(jobs.c.public_id, jobs.c.finished_at)
        .where(
            jobs.c.tenant_id == endpoint.tenant_id,
            jobs.c.state.in_(states),
            jobs.c.finished_at >= since,
            ~is_told,
        )
        .order_by(jobs.c.finished_at)
    )


def _delivery(row: Any) -> Delivery:
    values = dict(row._mapping)  # noqa: SLF001  a row's names
    values["type"] = EventType(values["type"])
    values["state"] = DeliveryState(values["state"])
    return Delivery(**values)
