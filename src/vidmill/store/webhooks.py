"""Webhook endpoints: where a tenant wants to be told, of what, and with whose signature."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, text, update

from vidmill.store.unit import UnitOfWork
from vidmill.store.webhook_tables import webhook_deliveries as deliveries
from vidmill.store.webhook_tables import webhook_endpoints as endpoints

DEFAULT = "default"
"""Public id of the endpoint that every tenant has, for URLs that tasks and batches bring along."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One receiver.

    Attributes:
        url: None = the endpoint `default`, whose deliveries bring their own.
        secret: The signing key, in hex; `old_secret` signs too until `old_secret_until`.
        failing_since: When the first of its failures came that no success has followed.
        rest_until: It asked to be left alone so long.
    """

    id: int
    public_id: str
    tenant_id: int
    url: str | None
    description: str
    events: tuple[str, ...]
    secret: str = field(repr=False)
    old_secret: str | None = field(repr=False)
    old_secret_until: float | None
    is_enabled: bool
    disabled_reason: str | None
    failing_since: float | None
    rest_until: float | None
    created_at: float
    updated_at: float

    @property
    def is_default(self) -> bool:
        return self.url is None

    def keys(self, now: float) -> tuple[bytes, ...]:
        """Return the keys that sign at *now*, the newest first."""
        is_old_live = self.old_secret is not None and (self.old_secret_until or 0.0) > now
        live = [self.secret, self.old_secret] if is_old_live else [self.secret]
        return tuple(bytes.fromhex(secret) for secret in live if secret)


_MINE = (endpoints.c.tenant_id == bindparam("tenant"), endpoints.c.public_id == bindparam("public"))
_ONE = select(endpoints).where(*_MINE)
_ALL = (
    select(endpoints)
    .where(endpoints.c.tenant_id == bindparam("tenant"))
    .order_by(endpoints.c.id.desc())
)
_COUNT = select(func.count()).where(endpoints.c.tenant_id == bindparam("tenant"))


def create(
    uow: UnitOfWork,
    *,
    tenant_id: int,
    public_id: str,
    url: str,
    description: str,
    events: Sequence[str],
    secret: str,
) -> Endpoint:
    values = {
        "public_id": public_id,
        "tenant_id": tenant_id,
        "url": url,
        "description": description,
        "events": list(events),
        "secret": secret,
        "created_at": uow.now,
        "updated_at": uow.now,
    }
    query = endpoints.insert().values(values).returning(*endpoints.c)
    return to_endpoint(uow.conn.execute(query).one())


def find(conn: Connection, tenant_id: int, public_id: str) -> Endpoint | None:
    row = conn.execute(_ONE, {"tenant": tenant_id, "public": public_id}).first()
    return None if row is None else to_endpoint(row)


def of_tenant(conn: Connection, tenant_id: int) -> list[Endpoint]:
    """Return the tenant's endpoints, the newest first and `default` last."""
    return [to_endpoint(row) for row in conn.execute(_ALL, {"tenant": tenant_id})]


def count(conn: Connection, tenant_id: int) -> int:
    """Return how many there are, `default` included."""
    return int(conn.execute(_COUNT, {"tenant": tenant_id}).scalar_one())


def change(uow: UnitOfWork, endpoint_id: int, values: Mapping[str, Any]) -> Endpoint | None:
    """Set columns of an endpoint; None if it is gone."""
    query = update(endpoints).where(endpoints.c.id == endpoint_id)
    changed = query.values(**values, updated_at=uow.now).returning(*endpoints.c)
    row = uow.conn.execute(changed).first()
    return None if row is None else to_endpoint(row)


def rotate(uow: UnitOfWork, endpoint_id: int, secret: str, *, old_until: float) -> Endpoint | None:
    """Sign with *secret* from now on, and with the present one too until *old_until*."""
    values = {"secret": secret, "old_secret": endpoints.c.secret, "old_secret_until": old_until}
    return change(uow, endpoint_id, values)


def remove(uow: UnitOfWork, endpoint_id: int) -> None:
    """Delete an endpoint; nobody finds its log any more, see `deliveries.forget_log`."""
    uow.conn.execute(delete(endpoints).where(endpoints.c.id == endpoint_id))


_WANTS = text("SELECT endpoint_id FROM webhook_wants WHERE tenant_id = :tenant AND type = :type")
_DEFAULT_ID = select(endpoints.c.id).where(*_MINE)


def record(
    uow: UnitOfWork, *, tenant_id: int, event_type: str, subject: str, url: str | None = None
) -> None:
    """Let all endpoints that want *event_type* be told of *subject*, and *url* if there is one.

    In the transaction that makes it true, once. What becomes of jobs is told by triggers.
    """
    wanted = uow.conn.execute(_WANTS, {"tenant": tenant_id, "type": event_type}).scalars()
    told: list[tuple[int, str | None]] = [(endpoint_id, None) for endpoint_id in wanted]
    if url is not None:
        mine = {"tenant": tenant_id, "public": DEFAULT}
        told.append((uow.conn.execute(_DEFAULT_ID, mine).scalar_one(), url))
    rows = [
        {
            "public_id": new_message_id(),
            "endpoint_id": endpoint_id,
            "tenant_id": tenant_id,
            "type": event_type,
            "subject": subject,
            "url": own_url,
            "due_at": uow.now,
            "created_at": uow.now,
        }
        for endpoint_id, own_url in told
    ]
    if rows:
        uow.conn.execute(deliveries.insert(), rows)


def new_message_id() -> str:
    """Return a `webhook-id`, as the triggers make them."""
    return f"msg_{secrets.token_hex(16)}"


def note_success(uow: UnitOfWork, endpoint_id: int) -> None:
    healed = update(endpoints).where(
        endpoints.c.id == endpoint_id, endpoints.c.failing_since.is_not(None)
    )
    uow.conn.execute(healed.values(failing_since=None, rest_until=None))


def note_failure(uow: UnitOfWork, endpoint_id: int, *, rest_s: float) -> float:
    """Return since when the endpoint only fails; for *rest_s* it gets nothing."""
    query = update(endpoints).where(endpoints.c.id == endpoint_id)
    values: dict[str, Any] = {"failing_since": func.coalesce(endpoints.c.failing_since, uow.now)}
    if rest_s:
        values["rest_until"] = uow.now + rest_s
    failing = query.values(values).returning(endpoints.c.failing_since)
    since = uow.conn.execute(failing).scalar()
    return uow.now if since is None else float(since)


def to_endpoint(row: Any) -> Endpoint:
    """Return the endpoint in *row*, which holds every column."""
    values = dict(row._mapping)  # noqa: SLF001  a row's names
    return Endpoint(**{**values, "events": tuple(values["events"])})
