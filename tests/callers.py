"""Who asks, for tests of services."""

from typing import Any

from vidmill.domain.job import Lane
from vidmill.services.access import Caller
from vidmill.store.accounts import Plan


def make_caller(tenant_id: int = 1, *, user_id: int = 1, **plan: Any) -> Caller:
    """Return a caller whose plan allows the standard lane, unless *plan* says otherwise."""
    name = "default" if tenant_id == 1 else f"tenant-{tenant_id}"
    return Caller(
        key_id=tenant_id,
        tenant_id=tenant_id,
        tenant=name,
        user_id=user_id,
        user="default",
        plan=Plan(**{"name": "a plan", "lane": Lane.STANDARD, **plan}),
    )
