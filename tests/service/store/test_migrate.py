"""Bringing a schema up to date."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, create_engine, inspect, make_url
from sqlalchemy.exc import DBAPIError

from tests.databases import bare_database
from vidmill.domain.errors import ServiceUnavailable
from vidmill.store import counters, ledger, migrate
from vidmill.store.schema import metadata
from vidmill.store.session import Database, open_database


def connect(url: str) -> Connection:
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
    parsed = make_url(url)
    return create_engine(parsed.set(drivername=driver[parsed.get_backend_name()])).connect()


def write_raw(db: Database, *statements: str) -> None:
    db.write(lambda uow: [uow.conn.exec_driver_sql(statement) for statement in statements])


def test_empty_database_comes_up_to_the_newest_schema(tmp_path: Path) -> None:
    url = bare_database(tmp_path)
    assert migrate.current(url) is None
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()


def test_upgrading_twice_keeps_what_is_there(tmp_path: Path) -> None:
    url = bare_database(tmp_path)
    migrate.upgrade(url)
    db = open_database(url)
    write_raw(db, "INSERT INTO leases VALUES ('a', 'b', 1)")
    db.close()
    migrate.upgrade(url)
    db = open_database(url)
    kept = db.read(lambda conn: conn.exec_driver_sql("SELECT name FROM leases").scalar_one())
    db.close()
    assert kept == "a"


def test_two_starts_at_once_migrate_once(tmp_path: Path) -> None:
    url = bare_database(tmp_path)
    migrate.head()  # import Alembic's scripts in one thread
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: migrate.upgrade(url), range(2)))
    assert migrate.current(url) == migrate.head()


def test_migrations_make_the_tables_the_program_knows(tmp_path: Path) -> None:
    url = bare_database(tmp_path)
    migrate.upgrade(url)
    with connect(url) as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        made = {
            table: sorted(
                str(check["name"]) for check in inspect(conn).get_check_constraints(table)
            )
            for table in metadata.tables
        }
    known = {
        name: sorted(
            str(rule.name) for rule in table.constraints if isinstance(rule, CheckConstraint)
        )
        for name, table in metadata.tables.items()
    }
    assert made == known


def test_failed_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    url = bare_database(tmp_path)
    with connect(url) as conn:
        conn.exec_driver_sql("CREATE TABLE workers (id TEXT)")
        conn.commit()
    with pytest.raises(DBAPIError, match="already exists"):
        migrate.upgrade(url)
    with connect(url) as conn:
        assert inspect(conn).get_table_names() == ["workers"]


OLD_ROWS = (
    (
        "INSERT INTO tenants (name, weight, cap_running, cap_queued, created_at)"
        " VALUES ('old', 2, 5, 50, 100)"
    ),
    "INSERT INTO api_keys (tenant_id, name, key_hash, created_at) VALUES (1, 'k', 'h', 100)",
    *(
        "INSERT INTO jobs (public_id, tenant_id, pool, lane, state, max_attempts, spec, request,"
        f" est_cost_s, submitted_at, search_text) VALUES ('t{n}', 1, 'main', 1, 'queued', 4,"
        f" '{{}}', '{{}}', 10, {100 + n}, '')"
        for n in range(3)
    ),
    "UPDATE jobs SET state = 'running', worker = 'w', lease_until = 1 WHERE public_id = 't0'",
    "UPDATE jobs SET state = 'succeeded', finished_at = 150 WHERE public_id = 't0'",
)


@pytest.mark.sqlite  # the first release knew no other
def test_database_of_the_first_release_keeps_its_jobs_and_gains_what_is_new(
    tmp_path: Path,
) -> None:
    url = bare_database(tmp_path)
    migrate.upgrade(url, "0001")
    with connect(url) as conn:
        for statement in OLD_ROWS:
            conn.exec_driver_sql(statement)
        conn.commit()
    migrate.upgrade(url)
    db = open_database(url)
    users = "SELECT count(*) FROM jobs j JOIN users u ON u.id = j.user_id WHERE u.name = 'default'"
    entries = "SELECT count(*) FROM ledger WHERE credits = 0"
    numbers = db.read(lambda conn: [conn.exec_driver_sql(q).scalar() for q in (users, entries)])
    drift, audit = db.read(counters.find_drift), db.read(ledger.audit)
    db.close()
    assert (numbers, bool(drift), bool(audit)) == ([3, 4], False, False)


@pytest.mark.postgresql
def test_database_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    url = make_url(bare_database(tmp_path)).set(database="nobodys")
    with pytest.raises(ServiceUnavailable, match='"nobodys" does not exist'):
        migrate.upgrade(url.render_as_string(hide_password=False))
