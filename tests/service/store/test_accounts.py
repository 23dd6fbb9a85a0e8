"""Plans, tenants, users, keys."""

import pytest

from tests.builders import FakeClock
from vidmill.domain.job import Lane
from vidmill.store import accounts
from vidmill.store.accounts import CallerRows, Plan
from vidmill.store.session import Database

GOLD = Plan(
    name="gold",
    lane=Lane.STANDARD,
    pools=("gold", "main"),
    weight=3.0,
    cap_running=7,
    cap_queued=70,
    cached_price_percent=10,
    key_submits_per_min=60,
    tenant_reads_per_min=6000,
    clips_per_day=500,
)


def limits(db: Database, name: str) -> tuple[float, int, int]:
    (found,) = [t for t in db.read(accounts.all_tenants) if t.name == name]
    return found.weight, found.cap_running, found.cap_queued


def test_plan_is_kept_as_it_was_given(db: Database) -> None:
    db.write(lambda uow: accounts.save_plan(uow, GOLD))
    assert db.read(lambda conn: accounts.find_plan(conn, "gold")) == GOLD
    assert [plan.name for plan in db.read(accounts.all_plans)] == ["default", "gold"]
    assert db.read(lambda conn: accounts.find_plan(conn, "silver")) is None


def test_tenant_has_the_limits_of_its_plan(db: Database) -> None:
    db.write(lambda uow: accounts.save_plan(uow, GOLD))
    db.write(lambda uow: accounts.ensure_tenant(uow, "new", plan="gold"))
    assert limits(db, "new") == (3.0, 7, 70)


def test_changed_plan_counts_for_its_tenants_at_once_and_for_no_others(db: Database) -> None:
    db.write(lambda uow: accounts.save_plan(uow, GOLD))
    db.write(lambda uow: accounts.ensure_tenant(uow, "new", plan="gold"))
    before = limits(db, "default")
    db.write(lambda uow: accounts.save_plan(uow, Plan(name="gold", weight=1.5, cap_running=2)))
    assert limits(db, "new") == (1.5, 2, accounts.CAP_DEFAULT)
    assert limits(db, "default") == before


def test_tenant_asked_for_again_keeps_its_plan(db: Database) -> None:
    db.write(lambda uow: accounts.save_plan(uow, GOLD))
    first = db.write(lambda uow: accounts.ensure_tenant(uow, "new", plan="gold"))
    again = db.write(lambda uow: accounts.ensure_tenant(uow, "new"))
    assert first == again


def test_unknown_plan_is_refused_and_the_known_ones_are_named(db: Database) -> None:
    with pytest.raises(LookupError, match="'silver'; there are: default"):
        db.write(lambda uow: accounts.ensure_tenant(uow, "new", plan="silver"))


def test_every_tenant_has_a_user_for_keys_that_name_none(db: Database, clock: FakeClock) -> None:
    tenant = db.write(lambda uow: accounts.ensure_tenant(uow, "new"))
    key = db.write(lambda uow: accounts.create_key(uow, tenant.id, "laptop", "hash"))
    found = db.read(lambda conn: accounts.find_caller_rows(conn, "hash"))
    assert found is not None
    assert (found.user.id, found.user.name) == (key.user_id, "default")
    assert (found.user.tenant_id, clock.now) == (tenant.id, found.user.created_at)


def test_key_without_a_user_leaves_the_weight_of_the_default_user(db: Database) -> None:
    db.write(lambda uow: accounts.ensure_user(uow, 1, "default", weight=4.0))
    db.write(lambda uow: accounts.create_key(uow, 1, "laptop", "hash"))
    found = db.read(lambda conn: accounts.find_caller_rows(conn, "hash"))
    assert found is not None
    assert found.user.weight == 4.0


def test_key_stands_for_its_tenant_user_and_plan(db: Database) -> None:
    db.write(lambda uow: accounts.save_plan(uow, GOLD))
    tenant = db.write(lambda uow: accounts.ensure_tenant(uow, "new", plan="gold"))
    ann = db.write(lambda uow: accounts.ensure_user(uow, tenant.id, "ann", weight=2.0))
    key = db.write(lambda uow: accounts.create_key(uow, tenant.id, "laptop", "hash", ann.id))
    expected = CallerRows(key=key, tenant=tenant, user=ann, plan=GOLD)
    assert db.read(lambda conn: accounts.find_caller_rows(conn, "hash")) == expected
    assert db.read(lambda conn: accounts.find_key(conn, "hash")) == key


def test_revoked_key_stands_for_nobody(db: Database) -> None:
    key = db.write(lambda uow: accounts.create_key(uow, 1, "laptop", "hash"))
    assert db.read(lambda conn: accounts.all_keys(conn, 1)) == [key]
    assert db.write(lambda uow: accounts.revoke_key(uow, key.id))
    assert not db.write(lambda uow: accounts.revoke_key(uow, key.id))
    assert db.read(lambda conn: accounts.find_caller_rows(conn, "hash")) is None
    assert db.read(lambda conn: accounts.find_key(conn, "hash")) is None


def test_users_of_two_tenants_may_have_one_name(db: Database) -> None:
    first = db.write(lambda uow: accounts.ensure_user(uow, 1, "ann"))
    second = db.write(lambda uow: accounts.ensure_user(uow, 2, "ann"))
    again = db.write(lambda uow: accounts.ensure_user(uow, 1, "ann", weight=2.0))
    assert first.id != second.id
    assert (again.id, again.weight) == (first.id, 2.0)


def test_clips_a_day_are_the_plans_and_change_with_it(db: Database) -> None:
    db.write(lambda uow: accounts.save_plan(uow, GOLD))
    tenant = db.write(lambda uow: accounts.ensure_tenant(uow, "new", plan="gold"))
    assert tenant.clips_per_day == 500
    assert db.read(lambda conn: accounts.plan_of(conn, tenant.id)) == GOLD
    db.write(lambda uow: accounts.save_plan(uow, Plan(name="gold")))
    found = db.read(lambda conn: accounts.get_tenant(conn, tenant.id))
    assert found is not None
    assert found.clips_per_day is None


def test_key_is_revoked_by_its_own_tenant_alone(db: Database) -> None:
    key = db.write(lambda uow: accounts.create_key(uow, 1, "laptop", "hash"))
    assert not db.write(lambda uow: accounts.revoke_key(uow, key.id, tenant_id=2))
    assert db.write(lambda uow: accounts.revoke_key(uow, key.id, tenant_id=1))


def test_last_use_is_kept_with_the_key(db: Database, clock: FakeClock) -> None:
    key = db.write(lambda uow: accounts.create_key(uow, 1, "laptop", "hash"))
    assert key.last_used_at is None
    clock.advance(5)
    db.write(lambda uow: accounts.note_use(uow, key.id))
    (found,) = db.read(lambda conn: accounts.all_keys(conn, 1))
    assert found.last_used_at == clock.now
