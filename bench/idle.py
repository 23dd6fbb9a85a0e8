"""What idle workers cost PostgreSQL: `python -m bench.idle --database URL [--workers 300]`.

Polls and heartbeats of so many workers, at the shipped pace, from a few connections; the server's
cost is read off the CPU time of its own processes, in per cent of one core.
"""

import argparse
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench.stock import stocked
from vidmill.settings import Settings
from vidmill.store import places, workers
from vidmill.store.routes import Route
from vidmill.store.session import Database
from vidmill.store.workers import WorkerState

THREADS = 4
QUEUED = 1000
"""In another pool: an idle worker's own has nothing."""


def cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds that *pids* have used (proc(5), stat)."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def backends(db: Database) -> list[int]:
    query = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    return db.read(lambda conn: list(conn.execute(query).scalars()))


def play(db: Database, names: list[str], until: float, settings: Settings) -> None:
    """Poll and beat for the workers *names*, evenly spread."""
    routes = (Route(pool="idle"),)
    due = [(time.monotonic() + random.uniform(0, 5), name, n % 2) for n, name in enumerate(names)]
    due += [(when + random.uniform(0, 2), name, 1 - kind) for when, name, kind in due]
    while time.monotonic() < until:
        due.sort()
        when, name, is_beat = due.pop(0)
        time.sleep(max(0.0, when - time.monotonic()))
        if is_beat:
            ready, lease_s = WorkerState.READY, settings.lease_s
            db.write(lambda uow: workers.renew(uow, worker=name, lease_s=lease_s, state=ready))  # noqa: B023
            due.append((when + settings.heartbeat_s, name, 1))
        else:
            now = db.now()
            db.look(lambda conn: places.pools_with_work(conn, routes, now))  # noqa: B023
            due.append((when + settings.poll_s, name, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True, help="URL of a server; a database is made")
    parser.add_argument("--workers", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    settings = Settings()
    names = [f"w{number}" for number in range(given.workers)]
    with stocked(given.database, Path(), QUEUED) as db:
        for name in names:
            row: dict[str, Any] = {
                "worker": name,
                "pool": "idle",
                "host": "h",
                "pid": 1,
                "profile": "tiny",
            }
            db.write(lambda uow: workers.register(uow, **row, lease_s=30.0))  # noqa: B023
        until = time.monotonic() + given.seconds + 6
        threads = [
            threading.Thread(target=play, args=(db, names[n::THREADS], until, settings))
            for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(6)  # until all have begun
        pids = backends(db)
        began, used = time.monotonic(), cpu_s(pids)
        time.sleep(given.seconds - 2)
        share = (cpu_s(pids) - used) / (time.monotonic() - began)
        for thread in threads:
            thread.join()
    print(f"{given.workers} idle workers cost PostgreSQL {share:.1%} of one core (wanted < 5 %)")


if __name__ == "__main__":
    main()
