"""kill -9 of every kind of process at random moments: no job is lost, none completes twice."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.e2e.stacks import Stack
from tests.tiny_random import shared_tiny_random, tiny_random_env
from tests.waiting import wait_until
from vidmill.domain.job import JobState
from vidmill.store import jobs
from vidmill.store.session import Database, open_database
from vidmill.worker.proc import stat

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SEED = 20
JOBS = 50
VICTIMS = ("render child", "finish child", "supervisor", "main")
ROUNDS = 2
LIMIT_S = 240.0
"""Far above the minute it takes: the machine of a test does other things as well."""


@pytest.fixture
def stack(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Stack]:
    model = shared_tiny_random(tmp_path_factory, worker_id)
    env = {**tiny_random_env(model), "VIDMILL_MAX_ATTEMPTS": "30"}
    stack = Stack(tmp_path / "data", env)
    with stack:
        yield stack


@pytest.fixture
def db(stack: Stack) -> Iterator[Database]:
    stack.wait_ready()
    database = open_database(f"sqlite:///{stack.data_dir / 'vidmill.db'}")
    yield database
    database.close()


def count_open(db: Database) -> int:
    query = text(
        "SELECT count(*) FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled')"
    )
    return int(db.read(lambda conn: conn.execute(query).scalar_one()))


def kill_at_random(stack: Stack, db: Database, rng: random.Random) -> Counter[str]:
    """Kill each kind of process, in random order, while there is work; start a dead stack again."""
    victims = [victim for _ in range(ROUNDS) for victim in rng.sample(VICTIMS, len(VICTIMS))]
    killed = Counter[str]()
    for victim in victims:
        time.sleep(rng.uniform(0.2, 1.5))  # the random moment is the point, not a wait
        if not count_open(db):
            break
        assert wait_until(partial(stack.kill, victim), timeout_s=60), victim
        killed[victim] += 1
        if victim == "main":
            stack.start()
            stack.wait_listening()
        else:
            assert wait_until(stack.is_ready, timeout_s=60, step_s=0.1), stack.log_tail()
    return killed


def test_fifty_jobs_survive_the_death_of_every_process(stack: Stack, db: Database) -> None:
    submitted = {stack.submit(prompt=f"a red ball {number}") for number in range(JOBS)}

    killed = kill_at_random(stack, db, random.Random(SEED))
    assert wait_until(lambda: not count_open(db), timeout_s=LIMIT_S, step_s=0.2), stack.log_tail()

    assert set(killed) == set(VICTIMS), "the work was over before every process was killed"
    query = text(
        "SELECT j.public_id, j.state, j.attempt, j.result IS NOT NULL,"
        " (SELECT count(*) FROM attempts a WHERE a.job_id = j.id AND a.outcome = 'succeeded'),"
        " (SELECT max(a.attempt) FROM attempts a WHERE a.job_id = j.id"
        "   AND a.outcome = 'succeeded'),"
        " (SELECT count(*) FROM attempts a WHERE a.job_id = j.id) FROM jobs j"
    )
    rows = db.read(lambda conn: conn.execute(query).all())
    assert {row[0] for row in rows} == submitted
    for public_id, state, attempt, has_result, successes, successful, attempts in rows:
        assert (state, has_result, successes) == (JobState.SUCCEEDED, 1, 1), public_id
        assert successful == attempt == attempts, public_id
    files = (stack.data_dir / "files").glob("*/*/*")
    kept = {"/".join(path.parts[-3:-1]) for path in files}
    assert kept == {f"{row[0]}/{row[2]}" for row in rows}
    assert not db.read(jobs.find_drift)
    tree = stack.all_pids()
    assert stack.stop() == 0
    assert not [pid for pid in tree if stat(pid)]
