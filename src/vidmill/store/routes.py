"""Which pools the workers of a class serve: an ordered list, each after a wait of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import Connection, delete, insert, select

from vidmill.store.models import pool_routes
from vidmill.store.unit import UnitOfWork


@dataclass(frozen=True, kw_only=True)
class Route:
    """A pool that is served.

    Attributes:
        min_wait_s: Only while a job of it waited so long; 0 = at once.
    """

    pool: str
    min_wait_s: float = 0.0


def of_class(conn: Connection, worker_class: str) -> tuple[Route, ...]:
    """Return the routes of *worker_class* in the order they are tried; none for an unknown one."""
    return all_classes(conn).get(worker_class, ())


def all_classes(conn: Connection) -> Mapping[str, tuple[Route, ...]]:
    """Return the routes of every class."""
    query = select(pool_routes).order_by(pool_routes.c.worker_class, pool_routes.c.rank)
    return {
        name: tuple(Route(pool=row.pool, min_wait_s=row.min_wait_s) for row in rows)
        for name, rows in groupby(conn.execute(query), key=lambda row: row.worker_class)
    }


def save_class(uow: UnitOfWork, worker_class: str, routes: Sequence[Route]) -> None:
    """Set what *worker_class* serves; no routes = forget the class."""
    uow.conn.execute(delete(pool_routes).where(pool_routes.c.worker_class == worker_class))
    rows = [
        {"worker_class": worker_class, "rank": rank, **vars(route)}
        for rank, route in enumerate(routes)
    ]
    if rows:
        uow.conn.execute(insert(pool_routes), rows)
