"""Joining storyboards whose shots are all there: one at a time in each process that serves.

Whoever takes one has a lease and renews it; when he dies, another begins anew in a folder of its
own. The write that publishes the files names the revision and the attempt, so it happens once.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from vidmill.domain.clip import Asset
from vidmill.domain.errors import (
    InternalError,
    JobCancelled,
    ServiceUnavailable,
    ShotMissing,
    StorageFailed,
    WorkError,
)
from vidmill.domain.ports import BlobStore
from vidmill.domain.storyboard import JoinedClip, Length, spans
from vidmill.store import storyboards
from vidmill.store.session import Database
from vidmill.store.storyboards import Shot, Storyboard
from vidmill.telemetry import get_logger

log = get_logger(__name__)

LEASE_S = 30.0
POLL_S = 1.0
TRIES_MAX = 3
"""Joining that failed so often is given up; a replaced shot begins to count anew."""

STORE_TRIES_MAX = 12
"""The same where the store failed, which is no fault of the shots: it may be away for an hour, and
who would be given up could only pay for a shot once more."""

RETRY_S, RETRY_MAX_S = 10.0, 600.0
"""First wait after a failure; doubles, up to the second."""

Keep = Callable[[float], bool]
"""Told the progress 0..1 every few seconds; False = stop, nobody wants the result any more."""


class Join(Protocol):
    """Makes and stores the files of one storyboard."""

    def __call__(self, order: Mapping[str, Any], keep: Keep) -> JoinedClip:
        """Return what was stored under `order["prefix"]`.

        Raises:
            JobCancelled: *keep* said so.
            WorkError: It went wrong.
        """
        ...


class Outcome(StrEnum):
    """What came of an attempt to join."""

    JOINED = "joined"
    FAILED = "failed"  # tried again later
    GIVEN_UP = "given_up"
    DROPPED = "dropped"  # nobody wants it any more, or another process goes on with it


@dataclass(frozen=True)
class Tally:
    """Attempts that this process made, and how long they took, by what came of them."""

    attempts: Counter[Outcome] = field(default_factory=Counter)
    seconds: defaultdict[Outcome, float] = field(default_factory=lambda: defaultdict(float))

    def count(self, outcome: Outcome, seconds: float) -> None:
        self.attempts[outcome] += 1
        self.seconds[outcome] += seconds


@dataclass(frozen=True, kw_only=True)
class Joiner:
    """Joins what waits. Each process has one, in a thread of its own."""

    db: Database
    blobs: BlobStore
    join: Join
    tally: Tally = field(default_factory=Tally)
    lease_s: float = LEASE_S

    def run(self, stop: threading.Event) -> None:
        """Join until *stop* is set; what is being joined then, another process begins anew."""
        while not stop.is_set():
            try:
                is_busy = self.step(stop)
            except Exception:  # like the controller's loop, it outlives any failure of one turn
                log.exception("joining_step_failed")
                is_busy = False
            if not is_busy:
                stop.wait(POLL_S)

    def step(self, stop: threading.Event | None = None) -> bool:
        """Join the oldest that waits; False: none does."""
        now = self.db.now()
        if not self.db.look(lambda conn: storyboards.has_waiting(conn, now=now)):
            return False
        board = self.db.write(partial(storyboards.take, lease_s=self.lease_s))
        if board is None:
            return False
        said = {"storyboard": board.public_id, "revision": board.revision, "attempt": board.attempt}
        log.info("joining", **said)
        began = time.monotonic()
        try:
            outcome = self._join(board, stop or threading.Event())
        except WorkError as error:
            log.warning("joining_failed", **said, code=error.code, error=str(error))
            outcome = self._fail(board, error)
        except ServiceUnavailable:  # the database is away: no fault of the shots, nor to be told
            raise
        except Exception as error:  # a fault of ours: unless it counts, it comes at each lease
            log.exception("joining_fault", **said)
            name = type(error).__name__
            outcome = self._fail(board, InternalError(f"joining met a fault of Vidmill's: {name}"))
        took_s = time.monotonic() - began
        self.tally.count(outcome, took_s)
        log.info("joining_ended", **said, outcome=outcome, took_s=round(took_s, 3))
        return True

    def _join(self, board: Storyboard, stop: threading.Event) -> Outcome:
        shots = self.db.read(lambda conn: storyboards.shots(conn, board.id))
        prefix = f"{board.public_id}/{board.revision}"
        self.blobs.delete_prefix(prefix)  # what somebody left who died
        order = {**_order(board, shots), "prefix": f"{prefix}/{board.attempt}"}

        def keep(progress: float) -> bool:
            renew = partial(storyboards.renew, taken=board, lease_s=self.lease_s, progress=progress)
            return not stop.is_set() and self.db.write(renew)

        try:
            joined = replace(self.join(order, keep), revision=board.revision)
        except JobCancelled:
            self.blobs.delete_prefix(order["prefix"])
            self.db.write(partial(storyboards.give_back, taken=board))
            return Outcome.DROPPED
        if not self.db.write(partial(storyboards.complete, taken=board, result=joined)):
            self.blobs.delete_prefix(order["prefix"])
            return Outcome.DROPPED
        self._forget_earlier(board)
        return Outcome.JOINED

    def _forget_earlier(self, board: Storyboard) -> None:
        """Delete the files of earlier revisions; what cannot be deleted goes with the board."""
        first = board.result.revision if board.result else 1
        for revision in range(first, board.revision):
            try:
                self.blobs.delete_prefix(f"{board.public_id}/{revision}")
            except StorageFailed as error:
                log.warning("files_not_deleted", storyboard=board.public_id, error=str(error))

    def _fail(self, board: Storyboard, error: WorkError) -> Outcome:
        told: dict[str, Any] = {"taken": board, "code": error.code, "message": str(error)}
        tries_max = STORE_TRIES_MAX if isinstance(error, StorageFailed) else TRIES_MAX
        if error.is_retryable and board.failures + 1 < tries_max:
            until = self.db.now() + min(RETRY_MAX_S, RETRY_S * 2**board.failures)
            self.db.write(partial(storyboards.put_off, **told, until=until))
            return Outcome.FAILED
        self.db.write(partial(storyboards.give_up, **told))
        return Outcome.GIVEN_UP


def _order(board: Storyboard, shots: Sequence[Shot]) -> dict[str, Any]:
    """Return what is to be joined, as JSON.

    Raises:
        ShotMissing: The task of a shot was erased.
    """
    videos = [_video(shot) for shot in shots]
    lengths = [Length(duration_s=s.duration_s, crossfade_s=s.crossfade_s) for s in shots]
    return {
        "clips": [{"key": video.key, "sha256": video.sha256} for video in videos],
        "size": [videos[0].width_px, videos[0].height_px],
        "fps": board.fps,
        "spans": [[span.frames, span.fade] for span in spans(lengths, board.fps)],
    }


def _video(shot: Shot) -> Asset:
    result = shot.job.result if shot.job else None
    if result is None:
        raise ShotMissing(f"the task of shot {shot.number} was deleted; replace the shot")
    return result.assets["video"]
