"""Bringing a schema up to date."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, inspect
from sqlalchemy.exc import OperationalError

from vidmill.store import migrate, sqlite
from vidmill.store.models import metadata
from vidmill.store.session import open_database


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder / 'new.db'}"


def test_empty_file_comes_up_to_the_newest_schema(tmp_path: Path) -> None:
    url = url_in(tmp_path)
    assert migrate.current(url) is None
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()


def test_upgrading_twice_keeps_what_is_there(tmp_path: Path) -> None:
    url = url_in(tmp_path)
    migrate.upgrade(url)
    db = open_database(url)
    db.write(lambda uow: uow.conn.exec_driver_sql("INSERT INTO leases VALUES ('a', 'b', 1)"))
    db.close()
    migrate.upgrade(url)
    db = open_database(url)
    kept = db.read(lambda conn: conn.exec_driver_sql("SELECT name FROM leases").scalar_one())
    db.close()
    assert kept == "a"


def test_two_starts_at_once_migrate_once(tmp_path: Path) -> None:
    url = url_in(tmp_path)
    migrate.head()  # import Alembic's scripts in one thread
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: migrate.upgrade(url), range(2)))
    assert migrate.current(url) == migrate.head()


def test_migrations_make_the_tables_the_program_knows(tmp_path: Path) -> None:
    url = url_in(tmp_path)
    migrate.upgrade(url)
    with sqlite.connect(sqlite.make_engine(url)) as conn:
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
    url = url_in(tmp_path)
    with sqlite.connect(sqlite.make_engine(url)) as conn:
        conn.exec_driver_sql("CREATE TABLE workers (id TEXT)")
    with pytest.raises(OperationalError, match="already exists"):
        migrate.upgrade(url)
    with sqlite.connect(sqlite.make_engine(url)) as conn:
        assert inspect(conn).get_table_names() == ["workers"]
