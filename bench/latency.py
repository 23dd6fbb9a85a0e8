"""Time from an accepted submit to its claim by an idle worker: `python -m bench.latency`.

Both instants are the database's: `submitted_at` is taken as the submitting transaction begins,
`started_at` in the claim. Between them lie a durable commit, the ticket's way through the broker
and the start of the claim. Two processes stand for the workers; each only claims.

    python -m bench.latency --queue 'redis://127.0.0.1/9?prefix=bench'
    python -m bench.latency --database postgresql://postgres@127.0.0.1/bench   # empty, or migrated
"""

import argparse
import random
import select
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import text

from tests.builders import make_spec
from vidmill.domain.ids import task_id
from vidmill.queueing import open_tickets
from vidmill.store import accounts, jobs, migrate
from vidmill.store.session import Database, open_database

QUERY = text(
    "SELECT a.started_at - j.submitted_at FROM jobs j JOIN attempts a"
    " ON a.job_id = j.id AND a.attempt = 1 WHERE j.id > :after ORDER BY 1"
)
POOL = "bench"
NUM_WORKERS = 2
POLL_S = 2.0
PAUSE_S = 0.05
WARM_UP = 5


def serve(database: str, queue: str, worker: str) -> None:
    """Claim whatever a ticket or the poll finds, until killed."""
    db, tickets = open_database(database), open_tickets(queue)
    inbox = tickets.listen([POOL], worker)
    while True:
        select.select([inbox], [], [], POLL_S)
        inbox.take()
        while db.write(
            lambda uow: jobs.claim(uow, pool=POOL, worker=worker, profile="tiny", lease_s=3600)
        ):
            pass


def submit(db: Database) -> int:
    """Accept one job; return its id."""
    new = jobs.NewJob(
        public_id=task_id(int(time.time() * 1000), random.getrandbits(60)),
        tenant_id=1,
        user_id=1,
        pool=POOL,
        spec=make_spec(),
        request={},
        est_cost_s=1.0,
    )
    return db.write(lambda uow: jobs.insert(uow, new)).id


def await_claims(db: Database, after: int, count: int) -> list[float]:
    """Return the sorted latencies in milliseconds once all *count* jobs are claimed."""
    while True:
        found = db.read(lambda conn: list(conn.execute(QUERY, {"after": after}).scalars()))
        if len(found) >= count:
            return [1000 * seconds for seconds in found]
        time.sleep(0.05)


def measure(database: str, queue: str, count: int) -> tuple[float, list[float]]:
    """Return the first job's latency with workers just started, and those of *count* others."""
    with closing(open_database(database)) as db, closing(open_tickets(queue)) as tickets:
        db.write(lambda uow: accounts.ensure_tenant(uow, "default", cap_running=1_000_000))
        first = submit(db)
        tickets.publish(POOL)
        [cold] = await_claims(db, first - 1, 1)
        for number in range(WARM_UP + count):
            after = submit(db)
            tickets.publish(POOL)
            if number < WARM_UP:
                first = after
                await_claims(db, after - 1, 1)
            time.sleep(PAUSE_S)
        return cold, await_claims(db, first, count)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=200)
    parser.add_argument("--database", help="empty = SQLite in a temporary folder")
    parser.add_argument("--queue", help="empty = sockets in a temporary folder")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vidmill-latency-") as folder:
        database = given.database or f"sqlite:///{Path(folder) / 'vidmill.db'}"
        queue = given.queue or f"local://{folder}/run"
        if given.worker:
            serve(database, queue, given.worker)
        migrate.upgrade(database)
        command = [sys.executable, "-m", "bench.latency", "--database", database, "--queue", queue]
        names = [f"w{time.time_ns()}{number}" for number in range(NUM_WORKERS)]
        workers = [subprocess.Popen([*command, "--worker", name]) for name in names]
        try:
            cold, found = measure(database, queue, given.submissions)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    quantiles = {f"p{q}": found[int(q / 100 * (len(found) - 1))] for q in (50, 90, 99)}
    shown = ", ".join(f"{name} {value:.1f}" for name, value in quantiles.items())
    print(f"{queue.partition(':')[0]} on {database.partition(':')[0]}, {len(found)} submissions")
    print(f"  submit to claim, idle workers, ms: {shown}; first, with their start: {cold:.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
