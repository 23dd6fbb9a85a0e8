"""What the ledger says, for tests of what jobs cost."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from vidmill.store.models import ledger

_ORDER = ("hold", "capture", "release")


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Credits of a tenant: `held` for what is under way, `captured` for what was delivered."""

    held: int
    captured: int


def balance(conn: Connection, tenant_id: int) -> Balance:
    """Return what *tenant_id* has held and captured, erased jobs included."""
    lines = conn.execute(select(ledger).where(ledger.c.tenant_id == tenant_id)).all()
    hold, captured, released = (
        sum(line.credits for line in lines if line.entry == entry) for entry in _ORDER
    )
    return Balance(held=hold - captured - released, captured=captured)


def entries(conn: Connection, job_id: int) -> list[tuple[str, int]]:
    """Return the entries of a job and their credits, the hold first."""
    lines = conn.execute(select(ledger).where(ledger.c.job_id == job_id)).all()
    found = [(line.entry, line.credits) for line in lines]
    return sorted(found, key=lambda line: _ORDER.index(line[0]))
