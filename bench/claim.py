"""What a claim costs as the queue grows: `python -m bench.claim [--json FILE]`.

Four databases (WAL, synchronous FULL) hold 1 k to 1 M queued jobs of 50 tenants in three lanes.
Claims go round them in turn, so that a busy neighbour hurts all alike; each claimed job is given
back, untimed, so that the queues keep their length. Told twice: the whole transaction with its
commit, and the claim inside it.
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from vidmill.domain.clip import ClipSpec, Resolution, Size
from vidmill.domain.job import Job
from vidmill.store import accounts, jobs, migrate, sqlite
from vidmill.store.session import Database, UnitOfWork, open_database

SIZES = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS = 150
WARM_UP = 10
NUM_TENANTS = 50
TARGET_RATIO = 2.0

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

FILL = """
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :size)
    INSERT INTO jobs (public_id, tenant_id, pool, lane, state, max_attempts, spec, request,
                      est_cost_s, submitted_at, search_text)
    SELECT printf('t2v_%032x', i), 1 + i % :tenants, 'main', i % 3, 'queued', 4, :spec, '{}', 10.0,
           1800000000.0 + i * 0.001, 'a red ball'
      FROM n"""


def filled(path: Path, size: int) -> Database:
    """Return a database with *size* queued jobs, inserted through the triggers."""
    url = f"sqlite:///{path}"
    migrate.upgrade(url)
    db = open_database(url)
    caps = {"cap_running": ROUNDS * 2, "cap_queued": max(SIZES)}
    db.write(
        lambda uow: [accounts.ensure_tenant(uow, f"tenant-{n}", **caps) for n in range(NUM_TENANTS)]
    )
    engine = sqlite.make_engine(url)
    with sqlite.connect(engine) as conn:  # by a connection of its own, which need not be durable
        conn.exec_driver_sql("PRAGMA synchronous=OFF")
        conn.exec_driver_sql("PRAGMA cache_size=-262144")
        values = {"size": size, "tenants": NUM_TENANTS, "spec": json.dumps(SPEC.to_json())}
        conn.exec_driver_sql(FILL, values)
        conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return db


def timed_claim(db: Database) -> tuple[float, float]:
    """Return milliseconds of one claim: the whole transaction, and without its commit."""
    inside: list[float] = []

    def claim(uow: UnitOfWork) -> Job | None:
        began = time.perf_counter()
        job = jobs.claim(uow, pool="main", worker="bench", lease_s=30.0)
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


def measure() -> list[dict[str, Any]]:
    """Return one line per size; ratios are to the smallest."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vidmill-bench-")))
        dbs: dict[int, Database] = {}
        fill_s: dict[int, float] = {}
        for size in SIZES:
            began = time.perf_counter()
            dbs[size] = stack.enter_context(closing(filled(folder / f"{size}.db", size)))
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
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    lines = measure()
    print("  queued   transaction p50   p99 ms   claim p50   p99 ms   ratio to 1k   fill s")
    for line in lines:
        print(
            f"{line['queued']:8d} {line['transaction_p50_ms']:17.2f}"
            f" {line['transaction_p99_ms']:8.2f} {line['claim_p50_ms']:11.2f}"
            f" {line['claim_p99_ms']:8.2f} {line['ratio']:13.2f} {line['fill_s']:8.1f}"
        )
    worst = max(line["ratio"] for line in lines)
    print(f"worst ratio {worst:.2f} (target <= {TARGET_RATIO:.1f})")
    if given.json:
        given.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
