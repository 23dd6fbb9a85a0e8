"""What a claim costs as the queue grows: `python -m bench.claim [--database URL] [--json FILE]`.

Four databases hold 1 k to 1 M queued jobs of 50 tenants in three lanes: SQLite files (WAL,
synchronous FULL), or databases made on a PostgreSQL server and dropped at the end.
Claims go round them in turn, so that a busy neighbour hurts all alike; each claimed job is given
back, untimed, so that the queues keep their length. Told twice: the whole transaction with its
commit, and the claim inside it.
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.stock import stocked
from vidmill.domain.job import Job
from vidmill.store import jobs
from vidmill.store.session import Database, UnitOfWork

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS = 150
WARM_UP = 10
TARGET_RATIO = 2.0
TARGET_P99_MS = 10.0


def timed_claim(db: Database) -> tuple[float, float]:
    """Return milliseconds of one claim: the whole transaction, and without its commit."""
    inside: list[float] = []

    def claim(uow: UnitOfWork) -> Job | None:
        began = time.perf_counter()
        job = jobs.claim(uow, pool="main", worker="bench", profile="tiny", lease_s=30.0)
        inside.append(time.perf_counter() - began)
        return job

    began = time.perf_counter()
    job = db.write(claim)
    whole = time.perf_counter() - began
    assert job is not None
    db.write(
        lambda uow: jobs.settle(
            uow, job_id=job.id, attempt=job.attempt, worker="bench", outcome=jobs.Requeued()
        )
    )
    return whole * 1000.0, inside[0] * 1000.0


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def measure(server: str | None) -> list[dict[str, Any]]:
    """Return one line per size; ratios are to the smallest."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vidmill-bench-")))
        dbs: dict[int, Database] = {}
        fill_s: dict[int, float] = {}
        for size in SIZES:
            began = time.perf_counter()
            dbs[size] = stack.enter_context(stocked(server, folder, size))
            fill_s[size] = time.perf_counter() - began
        taken: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
        for _ in range(WARM_UP + ROUNDS):
            for size, db in dbs.items():
                taken[size].append(timed_claim(db))
    lines: list[dict[str, Any]] = []
    for size in SIZES:
        whole, inside = (list(column) for column in zip(*taken[size][WARM_UP:], strict=True))
        line = {"queued": size, "fill_s": fill_s[size]}
        for name, values in (("transaction", whole), ("claim", inside)):
            line[f"{name}_p50_ms"] = percentile(values, 50)
            line[f"{name}_p99_ms"] = percentile(values, 99)
        first = lines[0] if lines else line
        line["ratio"] = line["claim_p50_ms"] / first["claim_p50_ms"]
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="a PostgreSQL server's URL; SQLite if left out")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    lines = measure(given.database)
    print("  queued   transaction p50   p99 ms   claim p50   p99 ms   ratio to 1k   fill s")
    for line in lines:
        print(
            f"{line['queued']:8d} {line['transaction_p50_ms']:17.2f}"
            f" {line['transaction_p99_ms']:8.2f} {line['claim_p50_ms']:11.2f}"
            f" {line['claim_p99_ms']:8.2f} {line['ratio']:13.2f} {line['fill_s']:8.1f}"
        )
    worst = max(line["ratio"] for line in lines)
    worst, p99_ms = (max(line[name] for line in lines) for name in ("ratio", "claim_p99_ms"))
    print(f"worst ratio {worst:.2f} (target <= {TARGET_RATIO:.1f})", end=", ")
    print(f"worst p99 {p99_ms:.1f} ms (target <= {TARGET_P99_MS:.0f})")
    if given.json:
        given.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
