"""Idempotency keys: the same request under the same key makes one thing, for a day."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from vidmill.domain.errors import IdempotencyKeyReused
from vidmill.store.batch_tables import batches
from vidmill.store.direct import Direct
from vidmill.store.models import IS_SHOWN, jobs
from vidmill.store.models import idempotency_keys as keys
from vidmill.store.storyboard_tables import storyboards
from vidmill.store.unit import UnitOfWork
from vidmill.store.webhook_tables import webhook_endpoints

KEPT_S = 86_400.0
"""How long a key is remembered; longer than any client goes on trying."""

FORGOTTEN_AT_ONCE = 2
"""Old keys deleted with each new one: more than come, so that they never pile up."""

_INSERTS: Mapping[str, Callable[..., Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


def _take(dialect: str) -> Direct:
    insert = _INSERTS[dialect](keys)
    over = {name: insert.excluded[name] for name in ("fingerprint", "public_id", "created_at")}
    take = insert.on_conflict_do_update(
        index_elements=[keys.c.tenant_id, keys.c.key],
        set_=over,
        where=keys.c.created_at <= bindparam("oldest"),
    )
    columns = [column.name for column in keys.columns]
    return Direct(take.returning(keys.c.public_id), columns=columns)


_TAKE = {dialect: _take(dialect) for dialect in _INSERTS}
_FORGET = Direct(
    text(f"""
        DELETE FROM idempotency_keys WHERE (tenant_id, "key") IN (
            SELECT tenant_id, "key" FROM idempotency_keys WHERE created_at < :oldest
             ORDER BY created_at LIMIT {FORGOTTEN_AT_ONCE})
        RETURNING "key"
    """)  # noqa: S608  our own number
)


def take_key(
    uow: UnitOfWork,
    *,
    tenant_id: int,
    key: str,
    fingerprint: str,
    public_id: str,
    kept_s: float = KEPT_S,
    is_taken_over: bool = False,
) -> tuple[str, bool]:
    """Return what *key* stands for now, and whether this is the first request under it.

    *fingerprint* tells apart what was asked for, the route included. Of two transactions at once,
    the second waits here for the first. *is_taken_over*: it is new, whatever it stood for.

    Raises:
        IdempotencyKeyReused: The key was used for another request.
    """
    oldest = uow.now if is_taken_over else uow.now - kept_s
    new = {"fingerprint": fingerprint, "public_id": public_id, "created_at": uow.now}
    row = {"tenant_id": tenant_id, "key": key, "oldest": oldest, **new}
    if _TAKE[uow.conn.dialect.name].first(uow.conn, row) is not None:
        _FORGET.all(uow.conn, {"oldest": uow.now - KEPT_S})
        return public_id, True
    # Its row is locked now. A statement of its own asks for the thing: one that waited for
    # another transaction sees the key which that one wrote, but not yet what it made.
    named = {"tenant": tenant_id, "name": key}
    found = uow.conn.execute(_FIND, named).one()
    if not found.is_there:  # it was erased meanwhile
        uow.conn.execute(_TAKE_OVER, {**named, **new})
        return public_id, True
    if found.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            f"the key stands for another request, the one that made {found.public_id};"
            " send a new key with a new request"
        )
    return str(found.public_id), False


def is_taken(conn: Connection, *, tenant_id: int, key: str, oldest: float) -> bool:
    """Return whether *key*, not older than *oldest*, stands for something as yet."""
    row = {"tenant": tenant_id, "name": key, "oldest": oldest}
    return conn.execute(_TAKEN, row).first() is not None


_IS_KEY = and_(keys.c.tenant_id == bindparam("tenant"), keys.c.key == bindparam("name"))
_MADE = (
    exists().where(jobs.c.public_id == keys.c.public_id, IS_SHOWN),
    *(
        exists().where(made.c.public_id == keys.c.public_id)
        for made in (batches, storyboards, webhook_endpoints)
    ),
)
_FIND = select(
    keys.c.fingerprint,
    keys.c.public_id,
    or_(*_MADE).label("is_there"),
).where(_IS_KEY)
_TAKEN = select(keys.c.key).where(_IS_KEY, keys.c.created_at > bindparam("oldest"), or_(*_MADE))
_TAKE_OVER = update(keys).where(_IS_KEY)
