"""Empty migrated databases of the kind the running test is to use: SQLite files, or PostgreSQL.

A PostgreSQL database is made once for each test process and emptied for each test; a test that asks
for a second one gets another. They are dropped when the process ends.
"""

import atexit
import functools
import itertools
import os
import tempfile
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from tests.services import require_postgres
from vidmill.store import migrate

KINDS = ("sqlite", "postgresql")


class Choice:
    """What the running test uses, and which databases it has already."""

    kind = "sqlite"
    in_use: dict[Path, str] = {}  # noqa: RUF012  one per process, emptied by `choose`


def choose(kind: str) -> None:
    """Say what `empty_database` gives from now on; databases given before are free again."""
    Choice.kind = kind
    Choice.in_use = {}


def empty_database(folder: Path) -> str:
    """Return the URL of an empty database at the newest schema, the one that belongs to *folder*.

    Of a folder that has one already, the same database, emptied.
    """
    return {"sqlite": _sqlite, "postgresql": _postgres}[Choice.kind](folder)


def _sqlite(folder: Path) -> str:
    path = folder / "vidmill.db"
    path.write_bytes(_migrated_bytes())
    return f"sqlite:///{path}"


def bare_database(folder: Path) -> str:
    """Return the URL of a database without any table, in *folder* or of its own."""
    if Choice.kind == "sqlite":
        return f"sqlite:///{folder / 'bare.db'}"
    return _new_database(f"bare_{next(_bare)}")


_bare = itertools.count()


@functools.cache
def _migrated_bytes() -> bytes:
    """Return a file with the newest schema; made once, as migrating takes half a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        migrate.upgrade(f"sqlite:///{path}")
        return path.read_bytes()


def _postgres(folder: Path) -> str:
    url = Choice.in_use.setdefault(folder, _postgres_number(len(Choice.in_use)))
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_emptying(url))
    return url


@functools.cache
def _postgres_number(number: int) -> str:
    url = _new_database(str(number))
    migrate.upgrade(url)
    return url


def _new_database(suffix: str) -> str:
    server = make_url(require_postgres())
    name = f"vidmill_test_{os.getpid()}_{suffix}"
    admin = server.render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        conn.execute(f"CREATE DATABASE {name}")
    atexit.register(_drop, admin, name)
    return server.set(database=name).render_as_string(hide_password=False)


def _drop(admin: str, name: str) -> None:
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@functools.cache
def _emptying(url: str) -> str:
    """Return statements that empty every table; as a replica would, so that no trigger objects."""
    with psycopg.connect(url) as conn:
        tables = [
            name
            for (name,) in conn.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
                " AND tablename <> 'alembic_version'"
            )
        ]
        sequences = [
            name
            for (name,) in conn.execute(
                "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"
            )
        ]
    parts = ["SET session_replication_role = replica"]
    parts += [f"DELETE FROM {table}" for table in tables]
    parts += [f"SELECT setval('{name}', 1, false)" for name in sequences]
    parts.append(
        "INSERT INTO plans (name, lane, pools, weight, cap_running, cap_queued, created_at)"
        " VALUES ('default', 0, '[]', 1, 10000, 10000, 0)"  # as the migration leaves it
    )
    return "; ".join(parts)
