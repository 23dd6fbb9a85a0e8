"""Deleting for good: a job no run writes to any more, its files, and all that is known of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from vidmill.domain.errors import StorageFailed
from vidmill.domain.ports import BlobStore
from vidmill.store import jobs
from vidmill.store.session import Database
from vidmill.telemetry import get_logger

log = get_logger(__name__)

AT_ONCE = 100
"""Jobs erased in one turn of the controller, which has other chores."""

PATIENCE_S = 5.0
"""How long a turn begins to erase another job: of a store that is silent each may take a minute."""


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """Erases what `jobs.hide` has hidden."""

    db: Database
    blobs: BlobStore

    def erase(self, job_id: int) -> bool:
        """Erase a job that is over; False: the files could not be deleted now, so it stays hidden.

        Files that another job shows stay until that one goes too. Files go first, so that after a
        failure half-way the row is still there to be erased again.
        """
        prefixes = self.db.write(lambda uow: jobs.withdraw(uow, job_id))
        try:
            for prefix in prefixes:
                self.blobs.delete_prefix(prefix)
        except StorageFailed as error:
            log.warning("files_not_deleted", job=job_id, error=str(error))
            return False
        self.db.write(lambda uow: jobs.erase(uow, job_id))
        return True


class Leftovers:
    """Erases what was hidden while it ran, or what could not be erased then. For one thread.

    *monotonic* gives seconds.
    """

    def __init__(
        self, erasure: Erasure, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._erasure = erasure
        self._monotonic = monotonic
        self._after = 0

    def erase_some(self) -> None:
        """Go on where the last turn ended: what cannot be erased holds up nothing behind it."""
        until = self._monotonic() + PATIENCE_S
        after, db = self._after, self._erasure.db
        found = db.read(lambda conn: jobs.hidden(conn, after=after, limit=AT_ONCE))
        for job_id in found:
            if self._monotonic() >= until:
                return
            self._after = job_id
            self._erasure.erase(job_id)
        if len(found) < AT_ONCE:
            self._after = 0
