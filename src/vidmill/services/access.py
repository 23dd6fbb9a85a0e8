"""Who is asking: from the hash of an API key to a caller."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from vidmill.store import accounts
from vidmill.store.session import Connection, Database


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose key it is. `is_vip`: may ask for the VIP lane."""

    key_id: int
    tenant_id: int
    tenant: str
    is_vip: bool


def hash_key(key: str) -> str:
    """Return what the database keeps of an API key. Keys are random, so no slow hash is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def find_caller(db: Database, key_hash: str, *, vip_tenants: Collection[str]) -> Caller | None:
    """Return who owns the key with this hash, or None."""

    def look(conn: Connection) -> Caller | None:
        key = accounts.find_key(conn, key_hash)
        tenant = accounts.get_tenant(conn, key.tenant_id) if key else None
        if key is None or tenant is None:
            return None
        return Caller(
            key_id=key.id,
            tenant_id=tenant.id,
            tenant=tenant.name,
            is_vip=tenant.name in vip_tenants,
        )

    return db.read(look)
