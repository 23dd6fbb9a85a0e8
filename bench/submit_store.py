"""How fast the store accepts jobs, each durable: `python -m bench.submit_store [--threads N]`.

The database alone, without HTTP: what group commit gives request threads. Every job is on disk
before its `write` returns.
"""

import argparse
import secrets
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from bench.claim import SPEC, filled
from vidmill.domain.ids import task_id
from vidmill.domain.job import Job
from vidmill.store import jobs
from vidmill.store.session import Database, UnitOfWork


def submit(db: Database) -> float:
    """Accept one job; return the seconds that took."""

    def insert(uow: UnitOfWork) -> Job:
        new = jobs.NewJob(
            public_id=task_id(int(uow.now * 1000), secrets.randbits(74)),
            tenant_id=1,
            pool="main",
            spec=SPEC,
            request={"prompt": SPEC.prompt, "duration": 3.0},
            est_cost_s=10.0,
        )
        return jobs.insert(uow, new)

    began = time.perf_counter()
    db.write(insert)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=8_000)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="vidmill-bench-") as folder,
        closing(filled(Path(folder) / "submit.db", 1_000)) as db,
        ThreadPoolExecutor(given.threads) as threads,
    ):
        began = time.perf_counter()
        took = list(threads.map(lambda _: submit(db), range(given.jobs)))
        whole = time.perf_counter() - began
    cuts = [cut * 1000.0 for cut in statistics.quantiles(took, n=100)]
    print(f"{given.threads} threads: {given.jobs / whole:.0f} jobs/s durable", end=", ")
    print(f"p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")


if __name__ == "__main__":
    main()
