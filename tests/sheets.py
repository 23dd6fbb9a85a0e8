"""Batches at the desk, for tests: checked, confirmed and looked at."""

from typing import Any

from tests.callers import make_caller
from tests.desks import Bench
from vidmill.domain.job import JobState, Lane
from vidmill.domain.order import Order
from vidmill.services.batch_checks import Candidate
from vidmill.services.batches import Batches, BatchView, Sheet
from vidmill.store import jobs

CALLER = make_caller(lane=Lane.VIP)


def check(batches: Batches, count: int = 3, *, cache: bool = False, **sheet: Any) -> BatchView:
    orders = [Order(prompt=f"ball {n}", cache=cache, priority="low") for n in range(count)]
    rows = [Candidate(line=n, order=order) for n, order in enumerate(orders, 1)]
    return batches.check(rows, CALLER, Sheet(**sheet))


def confirm(batches: Batches, count: int = 3, **sheet: Any) -> str:
    name = check(batches, count, **sheet).batch.public_id
    batches.confirm(name, CALLER, "ready_rows_only")
    return name


def states(bench: Bench) -> list[JobState]:
    found = bench.app.db.read(lambda conn: jobs.page(conn, 1, limit=100, is_oldest_first=True))
    return [job.state for job in found]
