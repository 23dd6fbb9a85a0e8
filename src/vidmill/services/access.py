"""Who is asking: from the hash of an API key to a caller."""

import hashlib
from dataclasses import dataclass

from vidmill.domain.job import Lane
from vidmill.store import accounts
from vidmill.store.accounts import Plan
from vidmill.store.session import Connection, Database


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose key it is, and what the tenant's plan allows."""

    key_id: int
    tenant_id: int
    tenant: str
    user_id: int
    user: str
    plan: Plan

    @property
    def is_vip(self) -> bool:
        """Whether the caller may ask for the VIP lane."""
        return self.plan.lane is Lane.VIP


def hash_key(key: str) -> str:
    """Return what the database keeps of an API key. Keys are random, so no slow hash is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def find_caller(db: Database, key_hash: str) -> Caller | None:
    """Return who owns the key with this hash, or None."""

    def look(conn: Connection) -> Caller | None:
        found = accounts.find_caller_rows(conn, key_hash)
        if found is None:
            return None
        return Caller(
            key_id=found.key_id,
            tenant_id=found.tenant.id,
            tenant=found.tenant.name,
            user_id=found.user.id,
            user=found.user.name,
            plan=found.plan,
        )

    return db.read(look)
