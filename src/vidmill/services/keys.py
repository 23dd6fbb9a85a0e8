"""A tenant's own keys: whoever may do everything hands out keys that may do less."""

from collections.abc import Sequence
from dataclasses import dataclass

from vidmill.domain.api_key import hint_of, id_named, new_key
from vidmill.domain.errors import KeyNotFound, PermissionDenied, QuotaExceeded
from vidmill.domain.permission import Scope
from vidmill.services.access import Caller, hash_key
from vidmill.store import accounts
from vidmill.store.accounts import ApiKey, Grant
from vidmill.store.session import Connection, Database, UnitOfWork

DAY_S = 86_400.0
KEYS_MAX = 1000
"""Of a tenant: a list of them is one answer, and every one left lying about can leak."""


@dataclass(frozen=True, kw_only=True)
class WantedKey:
    """A key as somebody asks for it.

    Attributes:
        user: Name of whose key it will be, made if new.
        expires_in_days: None = it does not expire.
    """

    name: str
    user: str
    scopes: frozenset[Scope]
    expires_in_days: float | None = None


@dataclass(frozen=True, kw_only=True)
class OwnedKey:
    """A key and the name of its user."""

    key: ApiKey
    user: str


def make_key(uow: UnitOfWork, tenant_id: int, wanted: WantedKey) -> tuple[OwnedKey, str]:
    """Make a key; return what is kept of it, and the key itself, which nobody can tell again."""
    key, days = new_key(), wanted.expires_in_days
    owner = accounts.find_user(uow.conn, tenant_id, wanted.user)
    owner = owner or accounts.ensure_user(uow, tenant_id, wanted.user)
    grant = Grant(
        scopes=wanted.scopes,
        expires_at=None if days is None else uow.now + days * DAY_S,
        hint=hint_of(key),
    )
    kept = accounts.create_key(uow, tenant_id, wanted.name, hash_key(key), owner.id, grant=grant)
    return OwnedKey(key=kept, user=owner.name), key


def keys_of(conn: Connection, tenant_id: int) -> list[OwnedKey]:
    """Return the tenant's keys, oldest first."""
    names = accounts.user_names(conn, tenant_id)
    return [
        OwnedKey(key=key, user=names[key.user_id]) for key in accounts.all_keys(conn, tenant_id)
    ]


@dataclass(frozen=True)
class Keys:
    """What a caller may do with the keys of its tenant. Methods block."""

    db: Database
    most: int = KEYS_MAX

    def all(self, caller: Caller) -> Sequence[OwnedKey]:
        return self.db.read(lambda conn: keys_of(conn, caller.tenant_id))

    def create(self, caller: Caller, wanted: WantedKey) -> tuple[OwnedKey, str]:
        """Make a key of the caller's tenant; the second is the key itself.

        Raises:
            PermissionDenied: It would have a scope that the caller's key lacks.
            QuotaExceeded: The tenant has as many as may be.
        """
        if beyond := wanted.scopes - caller.scopes:
            raise PermissionDenied(
                f"this key lacks the scopes {', '.join(sorted(beyond))} and cannot give them to"
                " another; use one that has them"
            )

        def write(uow: UnitOfWork) -> tuple[OwnedKey, str]:
            if accounts.count_keys(uow.conn, caller.tenant_id) >= self.most:
                raise QuotaExceeded(
                    f"you have {self.most} API keys, the most there may be; revoke those that are"
                    " out of use (GET /v1/t2v/keys tells when each was used last)"
                )
            return make_key(uow, caller.tenant_id, wanted)

        return self.db.write(write)

    def revoke(self, caller: Caller, name: str) -> None:
        """Take the tenant's key called `key_<n>` out of use.

        Raises:
            KeyNotFound: The tenant has none of that name.
        """
        key_id = id_named(name)
        if key_id is None or not self.db.write(
            lambda uow: accounts.revoke_key(uow, key_id, caller.tenant_id)
        ):
            raise KeyNotFound(f"there is no key {name}; GET /v1/t2v/keys lists yours")
