"""Storyboards: shots queued together as ordinary jobs, each replaceable, then joined.

A storyboard follows its shots by itself, see `storyboard_keeping`; `joining` makes the files.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vidmill.domain.errors import (
    FieldProblem,
    InvalidRequest,
    ServiceUnavailable,
    StorageFailed,
    StoryboardNotFound,
    StoryboardStateConflict,
)
from vidmill.domain.eta import Interval
from vidmill.domain.ids import RANDOM_BITS, public_name, task_id
from vidmill.domain.job import Job
from vidmill.domain.order import Order
from vidmill.domain.ports import BlobStore
from vidmill.domain.storyboard import (
    OPEN,
    BoardState,
    Length,
    ShotState,
    problems,
    total_s,
)
from vidmill.services.access import Caller
from vidmill.services.idempotency import IdempotencyKey, owner_of
from vidmill.services.storyboard_keeping import StoryboardKeeper
from vidmill.services.submission import Submission, Verdict
from vidmill.services.tasks import Tasks, TaskView
from vidmill.store import jobs, storyboards
from vidmill.store.session import Connection, Database, UnitOfWork
from vidmill.store.storyboards import NewShot, NewStoryboard, Shot, Storyboard

RENDERING_SHARE = 0.9
"""Part of the progress that is the shots'; joining takes seconds, they take minutes."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What a storyboard is besides its shots."""

    name: str | None
    resolution: str
    aspect_ratio: str
    fps: int
    priority: str
    webhook_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class ShotOrder:
    """A shot to make, and how long it fades into the next one, seconds."""

    order: Order
    crossfade_s: float

    @property
    def length(self) -> Length:
        return Length(duration_s=round(self.order.duration_s, 1), crossfade_s=self.crossfade_s)


@dataclass(frozen=True, kw_only=True)
class Quote:
    """What a storyboard would cost, credits by shot, and how long it would be."""

    prices: Sequence[int]
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class ShotView:
    """A shot as its owner sees it now; `task` is None once its task was erased."""

    shot: Shot
    task: TaskView | None

    @property
    def progress(self) -> float:
        if self.shot.state is ShotState.SUCCEEDED:
            return 1.0
        return self.task.progress if self.task else 0.0


@dataclass(frozen=True, kw_only=True)
class StoryboardView:
    """A storyboard as its owner sees it now.

    Attributes:
        is_replay: The same request under the same key was answered before.
    """

    board: Storyboard
    shots: Sequence[ShotView]
    is_replay: bool = False

    @property
    def duration_s(self) -> float:
        return total_s([_length(view.shot) for view in self.shots])

    @property
    def price_credits(self) -> int:
        """What the shots in use cost; failed and cancelled ones cost nothing."""
        paid = (ShotState.ACTIVE, ShotState.SUCCEEDED)
        return sum(v.shot.price_credits for v in self.shots if v.shot.state in paid)

    @property
    def progress(self) -> float:
        if self.board.state is BoardState.COMPLETED:
            return 1.0
        whole = sum(view.shot.duration_s for view in self.shots)
        shown = sum(view.progress * view.shot.duration_s for view in self.shots) / whole
        rest = self.board.progress if self.board.state is BoardState.JOINING else 0.0
        return round(RENDERING_SHARE * shown + (1 - RENDERING_SHARE) * rest, 4)

    @property
    def finish(self) -> Interval | None:
        """When the last shot is done; joining follows."""
        ends = [view.task.outlook.finish for view in self.shots if view.task]
        return max((end for end in ends if end), key=lambda end: end.p50, default=None)


@dataclass(frozen=True, kw_only=True)
class Storyboards:
    """What can be done with storyboards.

    Attributes:
        blobs: Where joined files are.
        random_bits: Gives that many random bits, for ids.
    """

    db: Database
    submission: Submission
    tasks: Tasks
    keeper: StoryboardKeeper
    blobs: BlobStore
    shots_max: int
    duration_max_s: float
    random_bits: Callable[[int], int] = secrets.randbits

    def problems(self, shots: Sequence[Length]) -> list[FieldProblem]:
        """Return what is wrong with shots taken together; each by itself is right."""
        return list(problems(shots, shots_max=self.shots_max, duration_max_s=self.duration_max_s))

    def quote(self, shots: Sequence[ShotOrder], caller: Caller) -> Quote:
        """Return what a storyboard would be; nothing is stored.

        Raises:
            InvalidRequest, PermissionDenied: As `create`.
        """
        self._refuse([shot.length for shot in shots])
        return Quote(
            prices=[self.submission.quote(shot.order, caller) for shot in shots],
            duration_s=total_s([shot.length for shot in shots]),
        )

    def create(
        self,
        sheet: Sheet,
        shots: Sequence[ShotOrder],
        caller: Caller,
        *,
        key: IdempotencyKey | None = None,
    ) -> StoryboardView:
        """Queue every shot, all at once or none.

        Raises:
            InvalidRequest, PermissionDenied: Something is wrong; nothing was queued.
            IdempotencyKeyReused: *key* stands for another request.
            QueueFull, QuotaExceeded, ServiceUnavailable: As `Submission.accept_many`.
        """
        self._refuse([shot.length for shot in shots])
        queue = self.submission.accept_many([shot.order for shot in shots], caller, key=key)

        def write(uow: UnitOfWork) -> tuple[str, bool]:
            new = self._new(sheet, caller, now=uow.now)
            owner = owner_of(uow, caller, key, new.public_id)
            if owner == new.public_id:
                made = [_job(verdict) for verdict in queue(uow)]
                stored = [
                    NewShot(job=job, crossfade_s=shot.crossfade_s)
                    for job, shot in zip(made, shots, strict=True)
                ]
                storyboards.add(uow, new, stored)
            return owner, owner != new.public_id

        board_id, is_replay = self.db.write(write)
        return replace(self.get(board_id, caller), is_replay=is_replay)

    def get(self, board_id: str, caller: Caller) -> StoryboardView:
        """Return the caller's storyboard.

        Raises:
            StoryboardNotFound: There is none, or it is somebody else's.
        """
        view = self.find(board_id, caller.tenant_id)
        if view is None:
            raise _not_found(board_id)
        return view

    def find(self, board_id: str, tenant_id: int) -> StoryboardView | None:
        """Return the tenant's storyboard, or None. One that waits for no shot moves on by this."""

        def look(conn: Connection) -> tuple[Storyboard, list[Shot]] | None:
            board = storyboards.get(conn, board_id, tenant_id)
            return None if board is None else (board, storyboards.shots(conn, board.id))

        found = self.db.read(look)
        if found is None:
            return None
        board, shots = found
        is_waiting = board.state in (BoardState.RENDERING, BoardState.CANCELLING)
        if is_waiting and all(shot.state is not ShotState.ACTIVE for shot in shots):
            self.keeper.move_on(board.id)
            return self.find(board_id, tenant_id)
        return self._view(board, shots)

    def page(self, caller: Caller, *, after: int | None, limit: int) -> list[StoryboardView]:
        """Return up to *limit* of the tenant's, newest first, that follow *after*."""

        def look(conn: Connection) -> list[tuple[Storyboard, list[Shot]]]:
            found = storyboards.page(conn, caller.tenant_id, limit=limit, after=after)
            return [(board, storyboards.shots(conn, board.id)) for board in found]

        return [self._view(board, shots) for board, shots in self.db.read(look)]

    def replace_shot(
        self,
        board_id: str,
        number: int,
        shot: ShotOrder,
        caller: Caller,
        *,
        key: IdempotencyKey | None = None,
    ) -> StoryboardView:
        """Make one shot anew, whatever the storyboard is doing; the other clips are used again.

        Raises:
            StoryboardNotFound: As `get`; or there is no such shot.
            StoryboardStateConflict: It is being cancelled.
            InvalidRequest: The shot does not fit the others; or as `Submission.submit`.
            PermissionDenied, QueueFull, QuotaExceeded, ServiceUnavailable: As `submit`.
        """
        old = self.shot(self.get(board_id, caller), number)
        accept = self.submission.accept(shot.order, caller, key=key, parent=old.task_id)

        def write(uow: UnitOfWork) -> bool:
            held, shots = _to_change(uow, board_id, caller)
            self._refuse_misfit(shots, number, shot.length)
            replaced = shots[number - 1]
            jobs.lock(uow, replaced.task_id, caller.tenant_id)  # before the flows of the new one
            accepted = accept(uow)
            if accepted.is_replay:
                return True
            new = NewShot(job=accepted.job, crossfade_s=shot.crossfade_s)
            storyboards.replace_shot(uow, held, number, new)
            if replaced.state is ShotState.ACTIVE:
                self.tasks.stop(uow, replaced.task_id, caller)
            return False

        is_replay = self.db.write(write)
        return replace(self.get(board_id, caller), is_replay=is_replay)

    def refade(self, board_id: str, number: int, fade_s: float, caller: Caller) -> StoryboardView:
        """Change how long a shot fades into the next one; its clip stays, and nothing is charged.

        Raises:
            StoryboardNotFound, StoryboardStateConflict, InvalidRequest: As `replace_shot`.
        """
        self.shot(self.get(board_id, caller), number)

        def write(uow: UnitOfWork) -> None:
            held, shots = _to_change(uow, board_id, caller)
            old = _length(shots[number - 1])
            self._refuse_misfit(shots, number, replace(old, crossfade_s=fade_s))
            if fade_s != old.crossfade_s:
                storyboards.refade_shot(uow, held, number, fade_s)

        self.db.write(write)
        return self.get(board_id, caller)

    def shot(self, view: StoryboardView, number: int) -> Shot:
        """Return shot *number*, from 1.

        Raises:
            StoryboardNotFound: There is none.
        """
        if not 1 <= number <= len(view.shots):
            raise StoryboardNotFound(f"it has {len(view.shots)} shots, and none is number {number}")
        return view.shots[number - 1].shot

    def cancel(self, board_id: str, caller: Caller) -> StoryboardView:
        """Cancel every shot that waits and stop every one that runs; finished clips stay.

        Raises:
            StoryboardNotFound: As `get`.
            StoryboardStateConflict: It is over.
        """

        def write(uow: UnitOfWork) -> Storyboard:
            held = _hold(uow, board_id, caller)
            if held.state not in OPEN:
                raise StoryboardStateConflict(
                    f"the storyboard is {held.state}; there is nothing to cancel"
                )
            return storyboards.set_state(uow, held, BoardState.CANCELLING, lease_until=None)

        self.keeper.stop_shots(self.db.write(write).id)
        return self.get(board_id, caller)

    def delete(self, board_id: str, caller: Caller) -> None:
        """Forget a storyboard and delete its files. Its tasks stay, with theirs.

        Raises:
            StoryboardNotFound: As `get`.
            StoryboardStateConflict: It is under way; cancel it first.
            ServiceUnavailable: The files could not be deleted now; it is still there.
        """
        self.get(board_id, caller)  # moves it on, if its last shot is over

        def refuse(uow: UnitOfWork) -> Storyboard:
            held = _hold(uow, board_id, caller)
            if held.state in OPEN:
                raise StoryboardStateConflict(f"the storyboard is {held.state}; cancel it first")
            return held

        self.db.write(refuse)
        try:
            self.blobs.delete_prefix(board_id)
        except StorageFailed as error:
            raise ServiceUnavailable("the files could not be deleted now; try again") from error
        self.db.write(lambda uow: storyboards.remove(uow, refuse(uow)))

    def _view(self, board: Storyboard, shots: Sequence[Shot]) -> StoryboardView:
        views = [
            ShotView(shot=shot, task=self.tasks.view(shot.job) if shot.job else None)
            for shot in shots
        ]
        return StoryboardView(board=board, shots=views)

    def _new(self, sheet: Sheet, caller: Caller, *, now: float) -> NewStoryboard:
        name = task_id(int(now * 1000), self.random_bits(RANDOM_BITS))
        return NewStoryboard(
            public_id=public_name(name, "sb"),
            tenant_id=caller.tenant_id,
            user_id=caller.user_id,
            **vars(sheet),
        )

    def _refuse(self, lengths: Sequence[Length]) -> None:
        if wrong := self.problems(lengths):
            raise InvalidRequest(wrong)

    def _refuse_misfit(self, shots: Sequence[Shot], number: int, new: Length) -> None:
        """Refuse a shot that does not fit, in the terms of a body that is this shot alone."""
        lengths = [_length(shot) for shot in shots]
        lengths[number - 1] = new
        own = f"#/shots/{number - 1}/crossfade"
        if wrong := self.problems(lengths):
            raise InvalidRequest(
                [
                    replace(one, pointer="#/crossfade" if one.pointer == own else "#/duration")
                    for one in wrong
                ]
            )


def _length(shot: Shot) -> Length:
    return Length(duration_s=shot.duration_s, crossfade_s=shot.crossfade_s)


def _job(verdict: Verdict) -> Job:
    if isinstance(verdict, Job):
        return verdict
    raise verdict


def _hold(uow: UnitOfWork, board_id: str, caller: Caller) -> Storyboard:
    held = storyboards.hold(uow, board_id, caller.tenant_id)
    if held is None:
        raise _not_found(board_id)
    return held


def _to_change(uow: UnitOfWork, board_id: str, caller: Caller) -> tuple[Storyboard, list[Shot]]:
    held = _hold(uow, board_id, caller)
    if held.state is BoardState.CANCELLING:
        raise StoryboardStateConflict("the storyboard is being cancelled; wait for its end")
    return held, storyboards.shots(uow.conn, held.id)


def _not_found(board_id: str) -> StoryboardNotFound:
    return StoryboardNotFound(f"there is no storyboard {board_id[:60]!r} of yours")
