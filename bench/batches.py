"""How long a batch of 10,000 rows takes: `python -m bench.batches [--postgres URL]`.

One API in this process on an empty database, each request by itself. `moved` is the time until
every task stands where its batch wants it, what the controller does after the answer included.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from starlette.testclient import TestClient

from vidmill.api.app import create_app
from vidmill.domain.job import Lane
from vidmill.profiles import load_profile
from vidmill.queueing import open_bus, open_tickets
from vidmill.services.access import hash_key
from vidmill.services.batch_keeping import BatchKeeper
from vidmill.settings import Settings
from vidmill.storage import open_blobs
from vidmill.store import accounts, migrate
from vidmill.store.session import UnitOfWork, open_database
from vidmill.wiring import App

BATCHES = "/v1/t2v/batches"
KEY = "vm_bench"
IS_MOVING = "SELECT count(*) FROM batches WHERE is_moving"


def table(num_rows: int) -> bytes:
    rows = (f"row-{n},a red ball number {n} bounces,3,480p,{n}\n" for n in range(num_rows))
    return f"custom_id,prompt,duration,resolution,seed\n{''.join(rows)}".encode()


def open_app(folder: Path, database_url: str) -> App:
    settings = Settings(data_dir=folder, profile="tiny", database_url=database_url)
    migrate.upgrade(settings.effective_database_url)
    db = open_database(settings.effective_database_url)

    def owner(uow: UnitOfWork) -> None:
        accounts.save_plan(uow, accounts.Plan(name="default", lane=Lane.VIP, cap_queued=100_000))
        tenant = accounts.ensure_tenant(uow, "default", cap_queued=100_000)
        accounts.create_key(uow, tenant.id, "bench", hash_key(KEY))

    db.write(owner)
    return App(
        settings=settings,
        db=db,
        blobs=open_blobs(settings.effective_storage_url),
        bus=open_bus(settings.effective_events_url),
        tickets=open_tickets(settings.effective_queue_url),
        profile=load_profile(settings.profile),
        signing_secret=b"s" * 32,
    )


def measure(app: App, num_rows: int) -> dict[str, float]:
    """Return the seconds of each step."""
    client = TestClient(create_app(app), headers={"Authorization": f"Bearer {KEY}"})
    keeper = BatchKeeper(db=app.db, bus=app.bus, tickets=app.tickets)
    took: dict[str, float] = {}

    def timed(name: str, ask: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        answer = ask()
        took[name] = time.perf_counter() - began
        assert answer.is_success, answer.text
        return answer

    def moved(batch: str, action: str) -> None:
        began = time.perf_counter()
        timed(action, lambda: client.post(f"{batch}/{action}"))
        while app.db.read(lambda conn: conn.exec_driver_sql(IS_MOVING).scalar()):
            keeper.tend()
        took[f"{action}, moved"] = time.perf_counter() - began

    headers = {"Content-Type": "text/csv"}
    checked = timed("check", lambda: client.post(BATCHES, content=table(num_rows), headers=headers))
    batch = f"{BATCHES}/{checked.json()['batch_id']}"
    timed("confirm", lambda: client.post(f"{batch}/confirm"))
    timed("progress, first", lambda: client.get(batch))
    timed("progress", lambda: client.get(batch))
    timed("100 rows", lambda: client.get(f"{batch}/rows?limit=100"))
    for action in ("pause", "resume", "cancel"):
        moved(batch, action)
    timed("results", lambda: client.get(f"{batch}/results"))
    timed("delete", lambda: client.delete(batch))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", default="", help="URL of an empty database")
    parser.add_argument("--rows", type=int, default=10_000)
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    for kind, url in {"SQLite": "", "PostgreSQL": asked.postgres}.items():
        if kind == "PostgreSQL" and not url:
            continue
        with tempfile.TemporaryDirectory() as folder:
            app = open_app(Path(folder), url)
            took = measure(app, asked.rows)
            app.close()
        print(f"{kind}, {asked.rows} rows")
        for name, seconds in took.items():
            print(f"  {name:18} {seconds:7.3f} s")


if __name__ == "__main__":
    main()
