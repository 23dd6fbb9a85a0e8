"""The job table as it must be: a dictionary of jobs, from which every counter follows."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from sqlalchemy import Connection

from vidmill.domain.job import TERMINAL, TRANSITIONS, Job, JobState

Counts = dict[tuple[object, ...], tuple[int, float, float | None]]

_CLOSING = {
    JobState.SUCCEEDED: "capture",
    JobState.FAILED: "release",
    JobState.CANCELLED: "release",
}
assert _CLOSING.keys() == TERMINAL


@dataclass(kw_only=True)
class Known:
    """What a test knows of a job; `job` is as it was accepted."""

    job: Job
    rank: int = 0
    attempts: int = 0
    is_flagged: bool = False
    state: JobState

    @property
    def user_key(self) -> tuple[object, ...]:
        return (self.job.pool, self.job.lane, self.job.tenant_id, self.job.user_id)

    @property
    def place(self) -> tuple[int, int]:
        return self.rank, self.job.id

    def move(self, state: JobState) -> None:
        assert state in TRANSITIONS[self.state]
        self.state = state


class Model:
    """All jobs by id."""

    def __init__(self) -> None:
        self.jobs: dict[int, Known] = {}

    def add(self, job: Job) -> None:
        self.jobs[job.id] = Known(job=job, state=job.state)

    def in_state(self, state: JobState) -> list[Known]:
        return [known for known in self.jobs.values() if known.state is state]

    def head(self, user_key: tuple[object, ...]) -> Known:
        """Return the queued job that the user wants next."""
        mine = [known for known in self.in_state(JobState.QUEUED) if known.user_key == user_key]
        return min(mine, key=lambda known: known.place)

    def user_flows(self) -> Counts:
        counts: Counts = {}
        for known in self.in_state(JobState.QUEUED):
            number, cost_s, _ = counts.get(known.user_key, (0, 0.0, None))
            head_at = self.head(known.user_key).job.submitted_at
            counts[known.user_key] = (number + 1, cost_s + known.job.est_cost_s, head_at)
        return counts

    def flows(self) -> Counts:
        parts: dict[tuple[object, ...], list[tuple[int, float, float]]] = defaultdict(list)
        for key, (number, cost_s, head_at) in self.user_flows().items():
            assert head_at is not None
            parts[key[:3]].append((number, cost_s, head_at))
        return {
            key: (sum(p[0] for p in of), sum(p[1] for p in of), min(p[2] for p in of))
            for key, of in parts.items()
        }

    def tenants(self, state: JobState) -> Counter[int]:
        return Counter(known.job.tenant_id for known in self.in_state(state))

    def ledger(self) -> Counter[tuple[int, str, int]]:
        """Return how often each line (job, entry, credits) must be there."""
        lines = [(known, "hold") for known in self.jobs.values()]
        lines += [(k, _CLOSING[k.state]) for k in self.jobs.values() if k.state in _CLOSING]
        return Counter((known.job.id, entry, known.job.price_credits) for known, entry in lines)


def kept_counts(conn: Connection, table: str, columns: str) -> Counts:
    """Return the counters of *table* that are not empty, costs to a thousandth."""
    rows = conn.exec_driver_sql(
        f"SELECT {columns}, queued, queued_cost_s, head_at FROM {table}"
        " WHERE queued <> 0 OR head_at IS NOT NULL"
    )
    return {tuple(row[:-3]): (row[-3], round(row[-2], 3), row[-1]) for row in rows}


def rounded(counts: Counts) -> Counts:
    return {key: (number, round(cost, 3), at) for key, (number, cost, at) in counts.items()}
