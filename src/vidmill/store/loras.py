"""Registered LoRA pairs: a tenant's own, and those that are shared by all."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from vidmill.domain.lora import Lora, LoraFile
from vidmill.store.lora_tables import loras
from vidmill.store.models import jobs
from vidmill.store.unit import UnitOfWork

_INSERTS: Mapping[str, Callable[..., Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


def create(uow: UnitOfWork, values: Mapping[str, Any]) -> Lora | None:
    """Register a LoRA of these columns; None if its owner has one of that name."""
    insert = _INSERTS[uow.conn.dialect.name](loras)
    made = insert.values(**values, created_at=uow.now).on_conflict_do_nothing()
    row = uow.conn.execute(made.returning(*loras.c)).first()
    return None if row is None else _to_lora(row)


def of_tenant(conn: Connection, tenant_id: int | None) -> list[Lora]:
    """Return what a tenant may use, its own before shared ones; None = only those shared by all."""
    mine = or_(loras.c.tenant_id.is_(None), loras.c.tenant_id == tenant_id)
    query = select(loras).where(mine).order_by(loras.c.tenant_id.is_(None), loras.c.name)
    return [_to_lora(row) for row in conn.execute(query)]


def find(conn: Connection, tenant_id: int | None, name: str) -> Lora | None:
    """Return the LoRA that *tenant_id* means by *name*: its own, else the shared one."""
    named = (lora for lora in of_tenant(conn, tenant_id) if lora.name == name)
    return next(named, None)


def enable(uow: UnitOfWork, lora_id: int, *, is_enabled: bool) -> Lora | None:
    """Put a LoRA on offer, or take it off; None if it is gone."""
    query = update(loras).where(loras.c.id == lora_id).values(is_enabled=is_enabled)
    row = uow.conn.execute(query.returning(*loras.c)).first()
    return None if row is None else _to_lora(row)


def remove(uow: UnitOfWork, lora_id: int) -> None:
    uow.conn.execute(delete(loras).where(loras.c.id == lora_id))


def is_in_use(conn: Connection, lora: Lora) -> bool:
    """Whether a job that is not over is drawn with it."""
    used = and_(jobs.c.lora == lora.use(None).key, _LIVE)
    if lora.tenant_id is not None:
        used = and_(used, jobs.c.tenant_id == lora.tenant_id)
    return bool(conn.execute(select(exists().where(used))).scalar())


def has_file(conn: Connection, sha256: str) -> bool:
    """Whether a registered LoRA has that file."""
    held = or_(loras.c.high_sha256 == sha256, loras.c.low_sha256 == sha256)
    return bool(conn.execute(select(exists().where(held))).scalar())


_LIVE = text("jobs.state IN ('queued', 'delayed', 'following', 'running', 'review')")
"""As the partial index `jobs_lora` says it, so that it is used."""


def _to_lora(row: Any) -> Lora:
    values = dict(row._mapping)  # noqa: SLF001  a row's names
    for side in ("high", "low"):
        values[side] = LoraFile(
            sha256=values.pop(f"{side}_sha256"), size_bytes=values.pop(f"{side}_bytes")
        )
    return Lora(**{**values, "trigger_words": tuple(values["trigger_words"])})
