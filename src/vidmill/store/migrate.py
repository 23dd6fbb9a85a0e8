"""Bringing a database's schema up to date."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DBAPIError

from vidmill.domain.errors import ServiceUnavailable
from vidmill.store import postgres, sqlite
from vidmill.store.postgres_errors import trouble_of

SCRIPTS = Path(__file__).parent / "migrations"


LOCK_KEY = 7_614_955_372
"""Of PostgreSQL's advisory lock while the schema changes; any number, but always this one."""


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at *url* to *revision*, creating its tables: all steps or none.

    Two processes may do so at once; the second waits and finds nothing to do.

    Raises:
        ServiceUnavailable: The database is not to be had now.
    """
    with _TRANSACTIONS[make_url(url).get_backend_name()](url) as conn:
        command.upgrade(_config(connection=conn), revision)


def current(url: str) -> str | None:
    """Return the revision the database at *url* is at; None = empty.

    Raises:
        ServiceUnavailable: The database is not to be had now.
    """
    with _CONNECTIONS[make_url(url).get_backend_name()](url) as conn:
        return MigrationContext.configure(conn).get_current_revision()


def head() -> str:
    """Return the newest revision this program knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def _config(**attributes: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes.update(attributes)
    return config


def _sqlite(url: str) -> Connection:
    return sqlite.connect(sqlite.make_engine(url))


def _postgres(url: str) -> Connection:
    try:
        return postgres.make_engine(url).connect()
    except DBAPIError as error:
        if trouble_of(error) is None:
            raise
        # Whoever starts the program reads this, not a caller of the API: tell him what is wrong.
        raise ServiceUnavailable(f"The database cannot be opened: {error.orig}") from error


_CONNECTIONS: Mapping[str, Callable[[str], Connection]] = {
    "sqlite": _sqlite,
    "postgresql": _postgres,
}


@contextmanager
def _transaction(conn: Connection, begin: str) -> Iterator[Connection]:
    """Run the block in one transaction, begun by the statements *begin*; the connection is ours."""
    with conn:
        conn.exec_driver_sql(begin)
        try:
            yield conn
        except BaseException:
            conn.exec_driver_sql("ROLLBACK")
            raise
        conn.exec_driver_sql("COMMIT")


_LOCKED = (  # no statement_timeout: the second waits for the first, and an index may take minutes
    "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;"
    f" SELECT pg_advisory_xact_lock({LOCK_KEY})"
)
_TRANSACTIONS: Mapping[str, Callable[[str], AbstractContextManager[Connection]]] = {
    "sqlite": lambda url: _transaction(_sqlite(url), "BEGIN IMMEDIATE"),
    "postgresql": lambda url: _transaction(_postgres(url), _LOCKED),
}
