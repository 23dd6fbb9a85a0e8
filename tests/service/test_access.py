"""Keys and their owners."""

import pytest

from vidmill.services.access import find_caller, hash_key
from vidmill.store import accounts
from vidmill.store.session import Database


def test_a_key_leads_to_its_tenant(db: Database) -> None:
    db.write(lambda uow: accounts.create_key(uow, 2, "laptop", hash_key("k")))

    caller = find_caller(db, hash_key("k"), vip_tenants=())

    assert caller is not None
    assert (caller.tenant_id, caller.tenant, caller.is_vip) == (2, "tenant-2", False)


def test_an_unknown_key_leads_nowhere(db: Database) -> None:
    assert find_caller(db, hash_key("k"), vip_tenants=()) is None


@pytest.mark.parametrize("vip_tenants", [["tenant-2"], ["default"]])
def test_vip_tenants_are_named_by_the_operator(db: Database, vip_tenants: list[str]) -> None:
    db.write(lambda uow: accounts.create_key(uow, 2, "laptop", hash_key("k")))

    caller = find_caller(db, hash_key("k"), vip_tenants=vip_tenants)

    assert caller is not None
    assert caller.is_vip is ("tenant-2" in vip_tenants)


def test_a_hash_says_nothing_about_the_key() -> None:
    assert "secret" not in hash_key("secret")
    assert len(hash_key("\ud800")) == 64
