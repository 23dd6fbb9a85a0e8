"""Idempotency keys: the same request under the same key makes one job, for a day."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import and_, bindparam, delete, exists, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from vidmill.domain.errors import IdempotencyKeyReused
from vidmill.store.models import idempotency_keys as keys
from vidmill.store.models import jobs
from vidmill.store.unit import UnitOfWork

KEPT_S = 86_400.0
"""How long a key is remembered; longer than any client goes on trying."""

FORGOTTEN_AT_ONCE = 2
"""Old keys deleted with each new one: more than come, so that they never pile up."""

_INSERTS: Mapping[str, Callable[..., Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


def take_key(uow: UnitOfWork, *, tenant_id: int, key: str, fingerprint: str, public_id: str) -> str:
    """Return the task that *key* stands for: *public_id* if the key is new, an earlier one if not.

    Of two transactions at once, the second waits here for the first.

    Raises:
        IdempotencyKeyReused: The key was used for another request.
    """
    oldest = uow.now - KEPT_S
    new = {"fingerprint": fingerprint, "public_id": public_id, "created_at": uow.now}
    insert = _INSERTS[uow.conn.dialect.name](keys).values(tenant_id=tenant_id, key=key, **new)
    taken = insert.on_conflict_do_update(
        index_elements=[keys.c.tenant_id, keys.c.key],
        set_=new,
        where=keys.c.created_at < oldest,
    ).returning(keys.c.public_id)
    if uow.conn.execute(taken).first() is not None:
        _forget(uow, oldest)
        return public_id
    # Its row is locked now. A statement of its own asks for the job: one that waited for another
    # transaction sees the key which that one wrote, but not yet its job.
    named = {"tenant": tenant_id, "name": key}
    row = uow.conn.execute(_FIND, named).one()
    if not row.is_there:  # it was erased meanwhile
        uow.conn.execute(_TAKE_OVER, {**named, **new})
        return public_id
    if row.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            f"the key stands for another request, the task {row.public_id};"
            " send a new key with a new request"
        )
    return str(row.public_id)


_IS_KEY = and_(keys.c.tenant_id == bindparam("tenant"), keys.c.key == bindparam("name"))
_FIND = select(
    keys.c.fingerprint,
    keys.c.public_id,
    exists().where(jobs.c.public_id == keys.c.public_id).label("is_there"),
).where(_IS_KEY)
_TAKE_OVER = update(keys).where(_IS_KEY)


def _forget(uow: UnitOfWork, oldest: float) -> None:
    old = (
        select(keys.c.tenant_id, keys.c.key)
        .where(keys.c.created_at < oldest)
        .order_by(keys.c.created_at)
        .limit(FORGOTTEN_AT_ONCE)
    )
    uow.conn.execute(delete(keys).where(tuple_(keys.c.tenant_id, keys.c.key).in_(old)))
