"""Erasing what was hidden, with files that cannot be deleted among it."""

from collections.abc import Collection
from pathlib import Path

from tests.builders import make_job
from vidmill.domain.errors import StorageFailed
from vidmill.domain.job import Job
from vidmill.services.erasure import AT_ONCE, PATIENCE_S, Erasure, Leftovers
from vidmill.storage.local import LocalBlobs
from vidmill.store import jobs
from vidmill.store.session import Database, UnitOfWork


class StuckBlobs(LocalBlobs):
    """Cannot delete the files of some jobs, and takes its time to say so."""

    def __init__(self, folder: Path, stuck: Collection[Job] = (), *, delay_s: float = 0.0) -> None:
        super().__init__(f"file://{folder}")
        self._stuck = {job.public_id for job in stuck}
        self._delay_s = delay_s
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def free(self) -> None:
        self._stuck.clear()

    def delete_prefix(self, prefix: str) -> int:
        self.now += self._delay_s
        if prefix in self._stuck:
            raise StorageFailed(f"{prefix} is held")
        return super().delete_prefix(prefix)


def make_hidden(db: Database, number: int) -> list[Job]:
    made = [make_job(db) for _ in range(number)]

    def hide(uow: UnitOfWork) -> None:
        for job in made:
            jobs.request_cancel(uow, job.public_id, job.tenant_id)
            jobs.hide(uow, job.id)

    db.write(hide)
    return made


def left(db: Database) -> list[int]:
    return list(db.read(lambda conn: jobs.hidden(conn, after=0, limit=1000)))


def test_files_that_cannot_be_deleted_hold_up_no_others(db: Database, tmp_path: Path) -> None:
    hidden = make_hidden(db, AT_ONCE + 2)
    stuck, free = hidden[:AT_ONCE], hidden[AT_ONCE:]
    leftovers = Leftovers(Erasure(db=db, blobs=StuckBlobs(tmp_path, stuck)))

    leftovers.erase_some()
    assert left(db) == [job.id for job in (*stuck, *free)]
    leftovers.erase_some()

    assert left(db) == [job.id for job in stuck]


def test_what_could_not_be_deleted_is_tried_again(db: Database, tmp_path: Path) -> None:
    stuck, _ = make_hidden(db, 2)
    blobs = StuckBlobs(tmp_path, [stuck])
    leftovers = Leftovers(Erasure(db=db, blobs=blobs))
    leftovers.erase_some()
    assert left(db) == [stuck.id]

    blobs.free()
    leftovers.erase_some()

    assert left(db) == []


def test_store_that_is_slow_takes_one_turn_a_few_seconds(db: Database, tmp_path: Path) -> None:
    hidden = make_hidden(db, 4)
    blobs = StuckBlobs(tmp_path, hidden[:2], delay_s=PATIENCE_S / 2)
    leftovers = Leftovers(Erasure(db=db, blobs=blobs), monotonic=blobs.monotonic)

    leftovers.erase_some()
    assert (blobs.now, left(db)) == (PATIENCE_S, [job.id for job in hidden])
    leftovers.erase_some()

    assert left(db) == [job.id for job in hidden[:2]]
