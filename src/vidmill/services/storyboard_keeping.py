"""Storyboards follow their shots: joined, failed or cancelled once none is under way.

A request that changes a storyboard does this at once; what it could not finish, because its process
died, the controller does by `tend`.
"""

from dataclasses import dataclass
from functools import partial

from vidmill.domain.ports import EventBus, TicketSource
from vidmill.services.lifecycle import stop
from vidmill.store import storyboards
from vidmill.store.session import Database


@dataclass(frozen=True, kw_only=True)
class StoryboardKeeper:
    """Lets storyboards follow their shots."""

    db: Database
    bus: EventBus
    tickets: TicketSource

    def tend(self) -> None:
        """Do what requests left undone, and move on what waits for no shot any more."""
        self.stop_shots()
        for board_id in self.db.read(storyboards.rendered):
            self.move_on(board_id)

    def stop_shots(self, board_id: int | None = None) -> None:
        """Stop the shots of storyboards being cancelled, or of one."""
        halt = partial(stop, bus=self.bus, tickets=self.tickets)
        for job in self.db.read(lambda conn: storyboards.to_stop(conn, board_id)):
            self.db.write(partial(halt, task_id=job.public_id, tenant_id=job.tenant_id))

    def move_on(self, board_id: int) -> None:
        """Let one be joined, failed or cancelled, if no shot is under way; of several, one does."""
        self.db.write(lambda uow: storyboards.move_on(uow, board_id))
