"""Idempotency keys: of the same request under the same key, only the first makes something."""

from dataclasses import dataclass

from vidmill.services.access import Caller
from vidmill.store import idempotency
from vidmill.store.session import Database, UnitOfWork


@dataclass(frozen=True, kw_only=True)
class IdempotencyKey:
    """A caller's name for one request. `fingerprint` tells requests under one key apart.

    Attributes:
        kept_s: How long it stands for what it made.
        is_taken_over: From now on it stands for this request, whatever it made before.
    """

    key: str
    fingerprint: str
    kept_s: float = idempotency.KEPT_S
    is_taken_over: bool = False


def is_repeat(db: Database, caller: Caller, key: IdempotencyKey | None) -> bool:
    """Return whether *key* stands for something already, as far as one can see now."""
    if key is None or key.is_taken_over:
        return False
    oldest = db.now() - key.kept_s
    return db.read(
        lambda conn: idempotency.is_taken(
            conn, tenant_id=caller.tenant_id, key=key.key, oldest=oldest
        )
    )


def owner_of(uow: UnitOfWork, caller: Caller, key: IdempotencyKey | None, public_id: str) -> str:
    """Take *key* for *public_id*; return whose it is, an earlier request's perhaps."""
    return public_id if key is None else _taken(uow, caller, key, public_id)[0]


def is_first(uow: UnitOfWork, caller: Caller, key: IdempotencyKey | None, public_id: str) -> bool:
    """Take *key* for a change of *public_id*; return whether none was made under it before."""
    return key is None or _taken(uow, caller, key, public_id)[1]


def _taken(
    uow: UnitOfWork, caller: Caller, key: IdempotencyKey, public_id: str
) -> tuple[str, bool]:
    return idempotency.take_key(
        uow,
        tenant_id=caller.tenant_id,
        key=key.key,
        fingerprint=key.fingerprint,
        public_id=public_id,
        kept_s=key.kept_s,
        is_taken_over=key.is_taken_over,
    )
