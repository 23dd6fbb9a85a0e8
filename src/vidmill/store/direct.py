"""Core statements run by the driver itself, for the two requests that come thousandfold.

SQLAlchemy's execution and result machinery costs 80 to 150 µs a statement, the query itself 20
(measured). The statement stays Core, compiled once per dialect; values go in and come out as
the driver knows them: JSON as text, truth as 0 and 1.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ClauseElement, Connection
from sqlalchemy.exc import DBAPIError


class Direct:
    """One statement. *columns* names the values of an INSERT."""

    def __init__(self, statement: ClauseElement, *, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = list(columns) if columns else None
        self._compiled: dict[str, tuple[str, tuple[str, ...]]] = {}

    def first(self, conn: Connection, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row, or None.

        Raises:
            DBAPIError: As from SQLAlchemy.
        """
        row: tuple[Any, ...] | None = self._run(conn, values, lambda found: found.fetchone())
        return row

    def all(self, conn: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return all rows.

        Raises:
            DBAPIError: As from SQLAlchemy.
        """
        rows: list[tuple[Any, ...]] = self._run(conn, values, lambda found: found.fetchall())
        return rows

    def _run(self, conn: Connection, values: Mapping[str, Any], fetch: Callable[[Any], Any]) -> Any:
        text, order = self._compiled.get(conn.dialect.name) or self._compile(conn)
        driver: Any = conn.connection.driver_connection
        try:
            found = driver.execute(text, [values[name] for name in order] if order else values)
            return fetch(found)
        except conn.dialect.loaded_dbapi.Error as error:
            base = conn.dialect.loaded_dbapi.Error
            raise DBAPIError.instance(text, None, error, base, hide_parameters=True) from error

    def _compile(self, conn: Connection) -> tuple[str, tuple[str, ...]]:
        compiled = self._statement.compile(dialect=conn.dialect, column_keys=self._columns)
        order = tuple(getattr(compiled, "positiontup", None) or ())
        self._compiled[conn.dialect.name] = str(compiled), order
        return self._compiled[conn.dialect.name]
