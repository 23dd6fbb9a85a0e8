"""Keys and their owners."""

import pytest

from tests.builders import FakeClock
from vidmill.domain.errors import PermissionDenied, Unauthorized
from vidmill.domain.job import Lane
from vidmill.domain.permission import Scope
from vidmill.services.access import find_caller, hash_key
from vidmill.store import accounts
from vidmill.store.session import Database


def test_a_key_leads_to_its_tenant_and_user(db: Database) -> None:
    user = db.write(lambda uow: accounts.ensure_user(uow, 2, "anna"))
    db.write(lambda uow: accounts.create_key(uow, 2, "laptop", hash_key("k"), user_id=user.id))

    caller = find_caller(db, hash_key("k"))

    assert caller is not None
    assert (caller.tenant_id, caller.tenant) == (2, "tenant-2")
    assert (caller.user_id, caller.user) == (user.id, "anna")


def test_a_key_without_a_user_is_the_default_users(db: Database) -> None:
    db.write(lambda uow: accounts.create_key(uow, 2, "laptop", hash_key("k")))

    caller = find_caller(db, hash_key("k"))

    assert caller is not None
    assert caller.user == "default"


def test_an_unknown_key_leads_nowhere(db: Database) -> None:
    assert find_caller(db, hash_key("k")) is None


@pytest.mark.parametrize("lane", list(Lane))
def test_the_plan_says_who_may_ask_for_the_vip_lane(db: Database, lane: Lane) -> None:
    plan = accounts.Plan(name="p", lane=lane, pools=("fast",))
    db.write(lambda uow: accounts.save_plan(uow, plan))
    db.write(lambda uow: accounts.ensure_tenant(uow, "tenant-2", plan="p"))
    db.write(lambda uow: accounts.create_key(uow, 2, "laptop", hash_key("k")))

    caller = find_caller(db, hash_key("k"))

    assert caller is not None
    assert caller.plan.pools == ("fast",)
    assert caller.is_vip is (lane is Lane.VIP)


def test_a_key_has_the_scopes_it_was_made_with(db: Database) -> None:
    grant = accounts.Grant(scopes=frozenset({Scope.READ}))
    db.write(lambda uow: accounts.create_key(uow, 2, "laptop", hash_key("k"), grant=grant))
    caller = find_caller(db, hash_key("k"))
    assert caller is not None
    assert caller.scopes == {Scope.READ}
    with pytest.raises(PermissionDenied, match=r"lacks the scope 'admin' \(it has: read\)"):
        caller.require(Scope.ADMIN)


def test_a_key_works_until_the_instant_it_expires(db: Database, clock: FakeClock) -> None:
    grant = accounts.Grant(expires_at=clock.now + 10)
    db.write(lambda uow: accounts.create_key(uow, 2, "laptop", hash_key("k"), grant=grant))
    clock.advance(9.9)
    assert find_caller(db, hash_key("k")) is not None
    clock.advance(0.1)
    with pytest.raises(Unauthorized, match="has expired"):
        find_caller(db, hash_key("k"))


def test_a_hash_says_nothing_about_the_key() -> None:
    assert "secret" not in hash_key("secret")
    assert len(hash_key("\ud800")) == 64
