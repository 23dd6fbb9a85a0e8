"""A worker prefers jobs of the LoRA it holds, and nobody but their own user could ever notice."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.builders import FakeClock, make_database, make_job, make_spec
from tests.claims import PATIENT
from vidmill.domain.job import Job, Lane
from vidmill.domain.lora import LoraUse
from vidmill.store import accounts, jobs
from vidmill.store.claim import NEAR, PASSED_MAX
from vidmill.store.session import Database

A, B, C = (LoraUse(name=n, high=n * 64, low=n * 64, strength=1.0) for n in "abc")
BY_NAME = {"a": A, "b": B, "c": C, "-": None}


def queue(db: Database, loras: str, **values: int) -> list[Job]:
    """Queue a job for each letter: its LoRA, `-` = none."""
    return [make_job(db, spec=make_spec(lora=BY_NAME[name]), **values) for name in loras]


def claim(db: Database, *held: LoraUse) -> Job | None:
    keys = [lora.key for lora in held]
    return db.write(
        lambda uow: jobs.claim(
            uow,
            pool="main",
            worker="w1",
            profile="tiny",
            lease_s=1e6,
            rules=PATIENT,
            loras=keys,
        )
    )


def served(db: Database, count: int, *held: LoraUse) -> str:
    found = (claim(db, *held) for _ in range(count))
    return "".join("." if job is None else _name(job) for job in found)


def _name(job: Job) -> str:
    return job.spec.lora.name if job.spec.lora else "-"


def test_without_a_lora_held_the_order_is_that_of_the_queue(db: Database) -> None:
    queue(db, "abab-")
    assert served(db, 6) == "abab-."


def test_jobs_of_the_lora_held_come_first_among_the_next_few(db: Database) -> None:
    queue(db, "abab")
    assert served(db, 4, B) == "bbaa"


def test_any_of_the_loras_held_will_do(db: Database) -> None:
    queue(db, "abcab")
    assert served(db, 3, B, C) == "bcb"


def test_a_job_without_a_lora_is_passed_over_for_none(db: Database) -> None:
    queue(db, "-a-a")
    assert served(db, 4, A) == "-a-a"


def test_only_the_next_few_are_looked_at(db: Database) -> None:
    queue(db, "b" * NEAR + "a")
    assert served(db, 2, A) == "ba"  # one claimed, and it is among them


def test_the_first_is_passed_over_so_often_in_a_row_and_no_more(db: Database) -> None:
    queue(db, "ba")
    for _ in range(3 * PASSED_MAX):  # as many as come
        queue(db, "a")
    assert served(db, PASSED_MAX + 3, A) == "a" * PASSED_MAX + "ba" + "a"


def test_after_the_first_had_its_turn_the_next_is_passed_over_as_often_again(db: Database) -> None:
    queue(db, "bb" + "a" * 20)
    run = "a" * PASSED_MAX + "b"
    assert served(db, 2 * len(run), A) == run + run


def test_what_its_owner_wants_next_is_next(db: Database) -> None:
    _, second, _ = queue(db, "cba")
    db.write(lambda uow: jobs.run_next(uow, second.public_id, 1, second.user_id))
    assert served(db, 3, A) == "bac"


@pytest.mark.parametrize("seed", range(2))
def test_every_lane_tenant_and_user_is_served_as_if_nobody_held_anything(
    db: Database, clock: FakeClock, tmp_path: Path, seed: int
) -> None:
    (tmp_path / "twin").mkdir()
    twin = make_database(tmp_path / "twin", clock, tenant_count=3)
    rng = random.Random(seed)
    owners = [(tenant, user) for tenant in (1, 2, 3) for user in _users(db, twin, tenant)]
    plain: list[tuple[int, int, int]] = []
    fond: list[tuple[int, int, int]] = []
    for _ in range(40):
        for _ in range(rng.choice((0, 1, 2, 3))):
            tenant, user = rng.choice(owners)
            lora = rng.choice("abc-")
            values = {"tenant_id": tenant, "user_id": user, "lane": rng.choice(list(Lane))}
            for database in (db, twin):
                queue(database, lora, **values)
        held = rng.sample((A, B, C), rng.choice((0, 1, 2)))
        plain.append(_whose(claim(db)))
        fond.append(_whose(claim(twin, *held)))
    twin.close()
    assert plain == fond


@pytest.mark.parametrize("seed", range(2))
def test_no_job_waits_longer_than_is_promised_whatever_comes(db: Database, seed: int) -> None:
    rng = random.Random(seed)
    waiting: dict[int, int] = {}  # turns until which it must have begun
    turn = 0
    for turn in range(80):
        for name in rng.choices("aaaab-", k=rng.choice((0, 1, 1, 2))):
            (job,) = queue(db, name)
            waiting[job.id] = turn + (len(waiting) + 1) * (PASSED_MAX + 1)
        found = claim(db, A)
        if found is not None:
            assert turn <= waiting.pop(found.id)
    assert all(turn <= until for until in waiting.values())


def _users(db: Database, twin: Database, tenant: int) -> Sequence[int]:
    names = ("ann", "bob")
    found = []
    for name in names:
        made = {_user(database, tenant, name) for database in (db, twin)}
        (number,) = made
        found.append(number)
    return found


def _user(db: Database, tenant: int, name: str) -> int:
    return db.write(lambda uow: accounts.ensure_user(uow, tenant, name)).id


def _whose(job: Job | None) -> tuple[int, int, int]:
    return (0, 0, 0) if job is None else (job.lane, job.tenant_id, job.user_id)
