"""Deleting for good: a job no run writes to any more, its files, and all that is known of it."""

from dataclasses import dataclass

from vidmill.domain.errors import StorageFailed
from vidmill.domain.ports import BlobStore
from vidmill.store import jobs
from vidmill.store.session import Database
from vidmill.telemetry import get_logger

log = get_logger(__name__)

AT_ONCE = 100
"""Jobs erased in one turn of the controller, which has other things to do."""


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

    def erase_hidden(self) -> None:
        """Erase what was hidden while it ran, or what could not be erased then."""
        for job_id in self.db.read(lambda conn: jobs.hidden(conn, limit=AT_ONCE)):
            self.erase(job_id)
