"""Tenants and their API keys."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select, text

from vidmill.store.models import api_keys, tenants
from vidmill.store.unit import UnitOfWork


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """Whose jobs they are.

    Attributes:
        weight: Share of GPU time against other tenants of the same lane.
        cap_running: Jobs that may run at once.
        cap_queued: Jobs that may be queued; beyond, submitting is refused.
    """

    id: int
    name: str
    weight: float
    cap_running: int
    cap_queued: int
    queued: int
    running: int
    created_at: float


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    id: int
    tenant_id: int
    name: str
    key_hash: str
    created_at: float


CAP_DEFAULT = 10_000
"""Running and queued jobs of a tenant where nothing else is said."""

_ENSURE = text("""
    INSERT INTO tenants (name, weight, cap_running, cap_queued, created_at)
         VALUES (:name, :weight, :cap_running, :cap_queued, :now)
    ON CONFLICT (name) DO UPDATE SET weight = excluded.weight,
         cap_running = excluded.cap_running, cap_queued = excluded.cap_queued""")
_BY_HASH = select(api_keys).where(api_keys.c.key_hash == bindparam("key_hash"))


def ensure_tenant(
    uow: UnitOfWork,
    name: str,
    *,
    weight: float = 1.0,
    cap_running: int = CAP_DEFAULT,
    cap_queued: int = CAP_DEFAULT,
) -> Tenant:
    """Return the tenant called *name* with these caps, made now if there is none."""
    caps = {"weight": weight, "cap_running": cap_running, "cap_queued": cap_queued}
    uow.conn.execute(_ENSURE, {"name": name, "now": uow.now, **caps})
    return _tenant(uow.conn.execute(select(tenants).where(tenants.c.name == name)).one())


def get_tenant(conn: Connection, tenant_id: int) -> Tenant | None:
    row = conn.execute(select(tenants).where(tenants.c.id == tenant_id)).first()
    return None if row is None else _tenant(row)


def create_key(uow: UnitOfWork, tenant_id: int, name: str, key_hash: str) -> ApiKey:
    """Keep a key by its hash alone; the key itself is never stored."""
    values = {"tenant_id": tenant_id, "name": name, "key_hash": key_hash, "created_at": uow.now}
    key_id = uow.conn.execute(api_keys.insert().returning(api_keys.c.id), values).scalar_one()
    return ApiKey(id=key_id, tenant_id=tenant_id, name=name, key_hash=key_hash, created_at=uow.now)


def find_key(conn: Connection, key_hash: str) -> ApiKey | None:
    row = conn.execute(_BY_HASH, {"key_hash": key_hash}).first()
    return None if row is None else ApiKey(**row._mapping)  # noqa: SLF001  a row's names


def _tenant(row: Any) -> Tenant:
    return Tenant(**row._mapping)  # noqa: SLF001  a row's names
