"""Who is asking: from the hash of an API key to a caller."""

import hashlib
from dataclasses import dataclass

from vidmill.domain.errors import PermissionDenied, Unauthorized
from vidmill.domain.job import Lane
from vidmill.domain.permission import ALL_SCOPES, Scope
from vidmill.store import accounts
from vidmill.store.accounts import Plan
from vidmill.store.session import Connection, Database

USE_NOTED_S = 60.0
"""How exact the instant of a key's last use is; a write for each request would be dear."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Whose key it is, and what the tenant's plan allows."""

    key_id: int
    tenant_id: int
    tenant: str
    user_id: int
    user: str
    plan: Plan
    scopes: frozenset[Scope] = ALL_SCOPES

    @property
    def is_vip(self) -> bool:
        """Whether the caller may ask for the VIP lane."""
        return self.plan.lane is Lane.VIP

    def require(self, scope: Scope) -> None:
        """Go on if the key may be used for *scope*.

        Raises:
            PermissionDenied: It may not.
        """
        if scope not in self.scopes:
            held = ", ".join(sorted(self.scopes)) or "none"
            raise PermissionDenied(
                f"this key lacks the scope {scope.value!r} (it has: {held}); use another, or ask"
                " whoever made it"
            )


def hash_key(key: str) -> str:
    """Return what the database keeps of an API key. Keys are random, so no slow hash is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def find_caller(db: Database, key_hash: str) -> Caller | None:
    """Return who owns the key with this hash, or None; that it was used is noted in passing.

    Raises:
        Unauthorized: It has expired. Only who has the right key is told so.
    """

    def look(conn: Connection) -> accounts.CallerRows | None:
        return accounts.find_caller_rows(conn, key_hash)

    found = db.read(look)
    if found is None:
        return None
    key, now = found.key, db.now()
    if key.grant.expires_at is not None and key.grant.expires_at <= now:
        raise Unauthorized("this API key has expired; make a new one")
    if key.last_used_at is None or key.last_used_at <= now - USE_NOTED_S:
        # Nobody waits for it, and nothing is lost but the instant if it fails.
        db.begin_write(
            lambda uow: accounts.note_use(uow, key.id), lambda _: None, order=key.tenant_id
        )
    return Caller(
        key_id=key.id,
        tenant_id=found.tenant.id,
        tenant=found.tenant.name,
        user_id=found.user.id,
        user=found.user.name,
        plan=found.plan,
        scopes=key.grant.scopes,
    )
