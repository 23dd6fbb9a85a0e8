"""Time from an accepted submit to its claim by an idle worker: `python -m bench.latency`.

Both instants are the database's: `submitted_at` is taken as the submitting transaction begins,
`started_at` in the claim. Between them lie a commit with fsync and the ticket's datagram. Each job
is cancelled once claimed, so that the worker is idle again for the next.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from tests.e2e.stacks import Stack
from vidmill.store.session import Database, open_database

DEFAULTS = {"VIDMILL_LEASE_S": "30", "VIDMILL_HEARTBEAT_S": "5", "VIDMILL_POLL_S": "2"}
QUERY = text(
    "SELECT a.started_at - j.submitted_at FROM jobs j JOIN attempts a"
    " ON a.job_id = j.id AND a.attempt = 1 ORDER BY 1"
)
PAUSE_S = 0.1


def latencies_ms(db: Database) -> list[float]:
    seconds = db.read(lambda conn: list(conn.execute(QUERY).scalars()))
    return [1000 * value for value in seconds]


def measure(stack: Stack, count: int) -> None:
    for _ in range(count):
        task = stack.submit(duration=3)
        while stack.status(task)["status"] == "queued":
            time.sleep(0.005)
        stack.call("POST", f"/v1/t2v/tasks/{task}/cancel")
        stack.wait_over(task)
        time.sleep(PAUSE_S)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=100)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vidmill-latency-") as folder:
        stack = Stack(Path(folder) / "data", DEFAULTS)
        with stack:
            stack.wait_ready()
            measure(stack, given.submissions)
            db = open_database(f"sqlite:///{stack.data_dir / 'vidmill.db'}")
            found = latencies_ms(db)
            db.close()
            stack.stop()
    quantiles = {f"p{q}": found[int(q / 100 * (len(found) - 1))] for q in (50, 90, 99)}
    shown = ", ".join(f"{name} {value:.1f}" for name, value in quantiles.items())
    print(f"submit to claim, idle worker, {len(found)} submissions, ms: {shown}")


if __name__ == "__main__":
    main(sys.argv[1:])
