"""Bringing a database's schema up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from vidmill.store import sqlite

SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(url: str) -> None:
    """Bring the database at *url* to the newest schema, creating it if need be: all steps or none.

    Two processes may do so at once; the second waits and finds nothing to do.
    """
    engine = sqlite.make_engine(url)
    with sqlite.connect(engine) as conn:
        conn.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            command.upgrade(_config(connection=conn), "head")
        except BaseException:
            conn.exec_driver_sql("ROLLBACK")
            raise
        conn.exec_driver_sql("COMMIT")


def current(url: str) -> str | None:
    """Return the revision the database at *url* is at; None = empty."""
    with sqlite.connect(sqlite.make_engine(url)) as conn:
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
