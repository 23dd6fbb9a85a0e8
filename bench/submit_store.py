"""How fast the store accepts jobs, each durable: `python -m bench.submit_store [--database URL]`.

The database alone, without HTTP. Told twice: threads that each call `write`, and one that calls
`begin_write` as an event loop does, with as many on their way. Every job is on disk before it
counts. `--tenants` says among how many owners they are spread: the row that counts a tenant's queue
is what its submissions meet at.
"""

import argparse
import itertools
import queue
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.stock import NUM_TENANTS, SPEC, stocked
from vidmill.domain.ids import task_id
from vidmill.domain.job import Job
from vidmill.store import jobs
from vidmill.store.session import Database, UnitOfWork

Insert = Callable[[UnitOfWork], Job]


def inserts(count: int, *, tenants: int) -> Iterator[Insert]:
    """Return *count* submissions, owners in turn."""
    owners = itertools.cycle(range(1, tenants + 1))

    def insert_for(owner: int) -> Insert:
        return lambda uow: jobs.insert(
            uow,
            jobs.NewJob(
                public_id=task_id(int(uow.now * 1000), secrets.randbits(74)),
                tenant_id=owner,
                user_id=owner,
                pool="main",
                spec=SPEC,
                request={"prompt": SPEC.prompt, "duration": 3.0},
                est_cost_s=10.0,
            ),
        )

    return (insert_for(next(owners)) for _ in range(count))


def by_threads(db: Database, works: Iterator[Insert], *, at_once: int) -> list[float]:
    """Return the seconds each took."""

    def submit(work: Insert) -> float:
        began = time.perf_counter()
        db.write(work)
        return time.perf_counter() - began

    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(submit, works))


def by_loop(db: Database, works: Iterator[Insert], *, at_once: int) -> list[float]:
    """Return the seconds each took."""
    done: queue.SimpleQueue[float] = queue.SimpleQueue()

    def begin(work: Insert) -> None:
        began = time.perf_counter()

        def arrived(outcome: Callable[[], Job]) -> None:
            outcome()
            done.put(time.perf_counter() - began)

        db.begin_write(work, arrived)

    for work in itertools.islice(works, at_once):
        begin(work)
    took = []
    for work in works:
        took.append(done.get())
        begin(work)
    return took + [done.get() for _ in range(at_once)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="a PostgreSQL server's URL; SQLite if left out")
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=8_000)
    parser.add_argument("--tenants", type=int, default=1, choices=range(1, NUM_TENANTS + 1))
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="vidmill-bench-") as folder,
        stocked(given.database, Path(folder), 1_000) as db,
    ):
        for name, way in (("write in threads", by_threads), ("begin_write", by_loop)):
            works = inserts(given.jobs, tenants=given.tenants)
            began = time.perf_counter()
            took = way(db, works, at_once=given.at_once)
            whole = time.perf_counter() - began
            cuts = [cut * 1000.0 for cut in statistics.quantiles(took, n=100)]
            print(f"{name}, {given.at_once} at once, {given.tenants} tenants:", end=" ")
            print(f"{given.jobs / whole:.0f} jobs/s", end=", ")
            print(f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")


if __name__ == "__main__":
    main()
