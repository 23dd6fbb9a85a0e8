"""Databases of the benchmarks' own, stocked with queued jobs through the triggers."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url

from vidmill.domain.clip import ClipSpec, Resolution, Size
from vidmill.store import accounts, migrate, postgres, sqlite
from vidmill.store.session import Database, UnitOfWork, open_database

NUM_TENANTS = 50
CAP_QUEUED = 10_000_000
CAP_RUNNING = 1_000

SPEC = ClipSpec(
    prompt="a red ball bouncing on a blue background",
    negative_prompt="",
    profile="tiny",
    resolution=Resolution.P480,
    size=Size(832, 480),
    native=Size(80, 48),
    duration_s=3.0,
    fps=24,
    native_fps=4,
    num_frames=13,
    steps=12,
    guidance_scale=3.0,
    guidance_scale_2=2.0,
    flow_shift=3.0,
    seed=7,
)

_COLUMNS = """
    INSERT INTO jobs (public_id, tenant_id, user_id, pool, lane, state, max_attempts, spec, request,
                      est_cost_s, submitted_at, search_text)"""
_FILL_SQLITE = f"""
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :size)
    {_COLUMNS}
    SELECT printf('t2v_%032x', i), 1 + i % {NUM_TENANTS}, u.id, 'main', i % 3, 'queued', 4, :spec,
           '{{}}', 10.0, 1800000000.0 + i * 0.001, 'a red ball'
      FROM n JOIN users u ON u.tenant_id = 1 + i % {NUM_TENANTS} ORDER BY i"""
_FILL_POSTGRES = f"""
    {_COLUMNS}
    SELECT 't2v_' || lpad(to_hex(i), 32, '0'), u.tenant_id, u.id, 'main', mod(i, 3), 'queued',
           4, %(spec)s::jsonb, '{{}}', 10.0, 1800000000.0 + i * 0.001, 'a red ball'
      FROM generate_series(0, %(size)s - 1) AS i
      JOIN users u ON u.tenant_id = 1 + mod(i, {NUM_TENANTS}) ORDER BY i"""


@contextmanager
def stocked(server: str | None, folder: Path, size: int) -> Iterator[Database]:
    """Give a database with *size* queued jobs: in *folder*, or on *server*, where it is dropped."""
    make = _on_server(server) if server else _in_folder(folder)
    with make as url:
        migrate.upgrade(url)
        with closing(open_database(url)) as db:
            db.write(_open_accounts)
            _FILLS[make_url(url).get_backend_name()](url, size)
            yield db


def _open_accounts(uow: UnitOfWork) -> None:
    for number in range(NUM_TENANTS):
        accounts.ensure_tenant(
            uow, f"tenant-{number}", cap_running=CAP_RUNNING, cap_queued=CAP_QUEUED
        )


@contextmanager
def _in_folder(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder / secrets.token_hex(4)}.db"


@contextmanager
def _on_server(server: str) -> Iterator[str]:
    name = f"vidmill_bench_{secrets.token_hex(4)}"
    engine = postgres.make_engine(server)
    with engine.connect() as conn:
        conn.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            conn.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def _fill_sqlite(url: str, size: int) -> None:
    with sqlite.connect(sqlite.make_engine(url)) as conn:  # which need not be durable
        conn.exec_driver_sql("PRAGMA synchronous=OFF")
        conn.exec_driver_sql("PRAGMA cache_size=-262144")
        conn.exec_driver_sql(_FILL_SQLITE, {"size": size, "spec": json.dumps(SPEC.to_json())})
        conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def _fill_postgres(url: str, size: int) -> None:
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as conn:
        values = {"size": size, "spec": json.dumps(SPEC.to_json())}
        conn.exec_driver_sql(_FILL_POSTGRES, values)
        conn.exec_driver_sql("VACUUM ANALYZE")
        conn.exec_driver_sql("CHECKPOINT")
    engine.dispose()


_FILLS: Mapping[str, Callable[[str, int], None]] = {
    "sqlite": _fill_sqlite,
    "postgresql": _fill_postgres,
}
