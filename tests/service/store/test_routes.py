"""Which pools a class of workers serves, and where an idle worker finds work."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Connection

from tests.builders import FakeClock, make_job
from tests.claims import claim_some
from vidmill.domain.job import Lane
from vidmill.store import places, routes
from vidmill.store.routes import Route
from vidmill.store.session import Database

OWN_THEN_VIP = (Route(pool="main"), Route(pool="vip", min_wait_s=20.0))


def with_work(db: Database, clock: FakeClock, asked: Sequence[Route] = OWN_THEN_VIP) -> list[str]:
    return db.read(lambda conn: places.pools_with_work(conn, asked, clock.now))


def test_class_keeps_its_routes_in_order(db: Database) -> None:
    db.write(lambda uow: routes.save_class(uow, "standard", OWN_THEN_VIP))
    db.write(lambda uow: routes.save_class(uow, "vip", (Route(pool="vip"),)))
    assert db.read(lambda conn: routes.of_class(conn, "standard")) == OWN_THEN_VIP
    assert db.read(routes.all_classes) == {"standard": OWN_THEN_VIP, "vip": (Route(pool="vip"),)}


def test_saving_a_class_again_replaces_what_it_had(db: Database) -> None:
    db.write(lambda uow: routes.save_class(uow, "standard", OWN_THEN_VIP))
    db.write(lambda uow: routes.save_class(uow, "standard", (Route(pool="vip"),)))
    assert db.read(lambda conn: routes.of_class(conn, "standard")) == (Route(pool="vip"),)


def test_class_without_routes_is_forgotten(db: Database) -> None:
    db.write(lambda uow: routes.save_class(uow, "standard", OWN_THEN_VIP))
    db.write(lambda uow: routes.save_class(uow, "standard", ()))
    assert db.read(routes.all_classes) == {}
    assert db.read(lambda conn: routes.of_class(conn, "standard")) == ()


def test_overflow_is_served_only_after_its_wait(db: Database, clock: FakeClock) -> None:
    make_job(db, pool="vip", lane=Lane.VIP)
    clock.advance(19.0)
    assert with_work(db, clock) == []
    clock.advance(1.0)
    assert with_work(db, clock) == ["vip"]


def test_own_pool_comes_first_whatever_waits_longer(db: Database, clock: FakeClock) -> None:
    make_job(db, pool="vip")
    clock.advance(60.0)
    make_job(db, pool="main", lane=Lane.BATCH)
    make_job(db, pool="elsewhere")
    assert with_work(db, clock) == ["main", "vip"]


def test_the_wait_is_that_of_the_next_job(db: Database, clock: FakeClock) -> None:
    make_job(db, pool="main")
    make_job(db, pool="vip")
    clock.advance(15.0)
    make_job(db, pool="vip")
    clock.advance(10.0)
    assert with_work(db, clock) == ["main", "vip"]
    claim_some(db)
    db.write(
        lambda uow: uow.conn.exec_driver_sql(
            "UPDATE jobs SET state = 'cancelled' WHERE pool = 'vip' AND id = 2"
        )
    )
    assert with_work(db, clock) == []


def test_no_routes_no_work(db: Database, clock: FakeClock) -> None:
    make_job(db)
    assert with_work(db, clock, ()) == []


def test_idle_polls_of_three_hundred_workers_are_one_indexed_statement(
    db: Database, clock: FakeClock
) -> None:
    db.write(
        lambda uow: uow.conn.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)"
            " INSERT INTO flows (pool, lane, tenant_id, queued, head_at)"
            " SELECT 'p' || i, 1, 1, 1, 1 FROM n"
        )
    )
    statement = places.work_query(2).text
    for number, route in enumerate(OWN_THEN_VIP):
        statement = statement.replace(f":pool{number}", f"'{route.pool}'")
        statement = statement.replace(f":until{number}", str(clock.now))

    def explain(conn: Connection) -> str:
        if conn.dialect.name == "postgresql":
            conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
        word = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[conn.dialect.name]
        return "\n".join(str(row) for row in conn.exec_driver_sql(f"{word} {statement}"))

    plan = db.read(explain)
    assert plan.count("flows_oldest") == len(OWN_THEN_VIP) * len(Lane)


@pytest.mark.parametrize("min_wait_s", [0.0, 5.0])
def test_job_of_a_clock_ahead_of_ours_is_seen_at_once_where_no_wait_is_asked(
    db: Database, clock: FakeClock, min_wait_s: float
) -> None:
    make_job(db)
    clock.advance(-1.0)
    seen = with_work(db, clock, (Route(pool="main", min_wait_s=min_wait_s),))
    assert seen == ([] if min_wait_s else ["main"])
