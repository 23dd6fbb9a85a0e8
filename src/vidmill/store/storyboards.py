"""The tables of storyboards: adding, reading, replacing shots, joining once, forgetting.

The row of a storyboard is locked before any job of it. Who joins holds a lease, and every write of
his names the revision and the attempt he took: after a newer one it changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select, update

from vidmill.domain.errors import ShotMissing
from vidmill.domain.job import Job
from vidmill.domain.storyboard import OPEN, BoardState, JoinedClip, ShotState
from vidmill.domain.webhook import EventType
from vidmill.store import webhooks
from vidmill.store.models import IS_SHOWN, JOB_COLUMNS, jobs
from vidmill.store.rows import to_job
from vidmill.store.storyboard_tables import IS_OPEN, storyboards
from vidmill.store.storyboard_tables import storyboard_shots as shot_rows
from vidmill.store.unit import UnitOfWork


@dataclass(frozen=True, kw_only=True)
class NewStoryboard:
    """A storyboard about to be stored; its jobs are in the same transaction."""

    public_id: str
    tenant_id: int
    user_id: int
    name: str | None
    resolution: str
    aspect_ratio: str
    fps: int
    priority: str
    webhook_url: str | None


@dataclass(frozen=True, kw_only=True)
class NewShot:
    """The job of a shot, and how long it fades into the next one."""

    job: Job
    crossfade_s: float


@dataclass(frozen=True, kw_only=True)
class Storyboard:
    """One storyboard. Instants are Unix seconds.

    Attributes:
        revision: Of its shots; grows with each that is replaced.
        attempt: Times that somebody began to join; with `revision`, the fence of who did.
        failures: Of those, how many failed since the last change of a shot.
        progress: Of the joining, 0..1.
        result: Of the revision it names, perhaps an earlier one.
    """

    id: int
    public_id: str
    tenant_id: int
    user_id: int
    name: str | None
    state: BoardState
    resolution: str
    aspect_ratio: str
    fps: int
    priority: str
    webhook_url: str | None
    revision: int
    attempt: int
    failures: int
    progress: float
    lease_until: float | None
    result: JoinedClip | None
    error_code: str | None
    error_message: str | None
    created_at: float
    finished_at: float | None


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One shot. `job` is None once its task was erased."""

    number: int
    state: ShotState
    duration_s: float
    crossfade_s: float
    price_credits: int
    task_id: str
    job: Job | None


_ACTIVE = and_(shot_rows.c.storyboard_id == storyboards.c.id, shot_rows.c.state == ShotState.ACTIVE)


def add(uow: UnitOfWork, new: NewStoryboard, shots: Sequence[NewShot]) -> Storyboard:
    """Store a storyboard whose shots are queued."""
    values = {**vars(new), "state": BoardState.RENDERING, "created_at": uow.now}
    row = uow.conn.execute(insert(storyboards).values(values).returning(storyboards)).one()
    rows = [
        {"storyboard_id": row.id, "number": number, **_shot_values(shot)}
        for number, shot in enumerate(shots, 1)
    ]
    uow.conn.execute(insert(shot_rows), rows)
    return _to_board(row)


def get(conn: Connection, public_id: str, tenant_id: int) -> Storyboard | None:
    """Return the tenant's storyboard."""
    row = conn.execute(select(storyboards).where(*_named(public_id, tenant_id))).first()
    return None if row is None else _to_board(row)


def hold(uow: UnitOfWork, public_id: str, tenant_id: int) -> Storyboard | None:
    """Return what `get` does, locked until the transaction ends."""
    query = select(storyboards).where(*_named(public_id, tenant_id)).with_for_update()
    row = uow.conn.execute(query).first()
    return None if row is None else _to_board(row)


def page(
    conn: Connection, tenant_id: int, *, limit: int, after: int | None = None
) -> list[Storyboard]:
    """Return up to *limit* of the tenant's, newest first; *after* ends the page before."""
    query = select(storyboards).where(storyboards.c.tenant_id == tenant_id)
    if after is not None:
        query = query.where(storyboards.c.id < after)
    rows = conn.execute(query.order_by(storyboards.c.id.desc()).limit(limit))
    return [_to_board(row) for row in rows]


def shots(conn: Connection, board_id: int) -> list[Shot]:
    """Return the shots in order, with their jobs."""
    query = select(shot_rows).where(shot_rows.c.storyboard_id == board_id)
    found = conn.execute(query.order_by(shot_rows.c.number)).all()
    ids = [row.job_id for row in found]
    known = {
        row.id: to_job(row)
        for row in conn.execute(select(*JOB_COLUMNS).where(jobs.c.id.in_(ids), IS_SHOWN))
    }
    return [_to_shot(row, known.get(row.job_id)) for row in found]


def replace_shot(uow: UnitOfWork, board: Storyboard, number: int, shot: NewShot) -> Storyboard:
    """Let *shot* be the one of that number in a storyboard, held: a new revision of it."""
    return _revise(uow, board, number, **_shot_values(shot))


def refade_shot(uow: UnitOfWork, board: Storyboard, number: int, crossfade_s: float) -> Storyboard:
    """Let a shot fade for so long into the next one: a new revision, of the same clips."""
    return _revise(uow, board, number, crossfade_s=crossfade_s)


def _revise(uow: UnitOfWork, board: Storyboard, number: int, **changes: Any) -> Storyboard:
    here = (shot_rows.c.storyboard_id == board.id, shot_rows.c.number == number)
    uow.conn.execute(update(shot_rows).where(*here).values(changes))
    return set_state(
        uow,
        board,
        BoardState.RENDERING,
        revision=board.revision + 1,
        failures=0,
        progress=0.0,
        lease_until=None,
        finished_at=None,
    )


def set_state(uow: UnitOfWork, board: Storyboard, state: BoardState, **changes: Any) -> Storyboard:
    """Put a storyboard, held, into *state*; *changes* are further columns.

    An earlier error, of a joining tried again since, goes with the earlier state.
    """
    values = {"state": state, "error_code": None, "error_message": None, **changes}
    changed = update(storyboards).where(storyboards.c.id == board.id)
    row = uow.conn.execute(changed.values(values).returning(storyboards)).one()
    return _to_board(row)


def rendered(conn: Connection) -> list[int]:
    """Return ids of those whose shots were under way, and are not any more."""
    states = [BoardState.RENDERING, BoardState.CANCELLING]
    query = select(storyboards.c.id).where(
        IS_OPEN, storyboards.c.state.in_(states), ~exists().where(_ACTIVE)
    )
    return [row.id for row in conn.execute(query.order_by(storyboards.c.id))]


def to_stop(conn: Connection, board_id: int | None = None) -> list[Job]:
    """Return the jobs of storyboards being cancelled, or of one, that were not asked to stop."""
    query = (
        select(*JOB_COLUMNS)
        .join(shot_rows, shot_rows.c.job_id == jobs.c.id)
        .join(storyboards, storyboards.c.id == shot_rows.c.storyboard_id)
        .where(
            IS_OPEN,
            storyboards.c.state == BoardState.CANCELLING,
            shot_rows.c.state == ShotState.ACTIVE,
            jobs.c.is_cancel_requested.is_(False),
            IS_SHOWN,
        )
    )
    if board_id is not None:
        query = query.where(storyboards.c.id == board_id)
    return [to_job(row) for row in conn.execute(query.order_by(jobs.c.id))]


def move_on(uow: UnitOfWork, board_id: int) -> None:
    """Let a storyboard follow its shots, once none of them is under way."""
    query = select(storyboards).where(storyboards.c.id == board_id, IS_OPEN).with_for_update()
    row = uow.conn.execute(query).first()
    if row is None or row.state == BoardState.JOINING:
        return
    counts = select(shot_rows.c.state, func.min(shot_rows.c.number).label("first"))
    mine = counts.where(shot_rows.c.storyboard_id == board_id).group_by(shot_rows.c.state)
    first = {ShotState(one.state): one.first for one in uow.conn.execute(mine)}
    if ShotState.ACTIVE in first:
        return
    board = _to_board(row)
    if board.state is BoardState.CANCELLING:
        set_state(uow, board, BoardState.CANCELLED, finished_at=uow.now)
    elif set(first) == {ShotState.SUCCEEDED}:
        set_state(uow, board, BoardState.JOINING)
    else:
        lost = min(number for state, number in first.items() if state is not ShotState.SUCCEEDED)
        said = f"shot {lost} has no clip; replace it, and the others are used as they are"
        _fail(uow, board, code=ShotMissing.code, message=said)


def take(uow: UnitOfWork, *, lease_s: float) -> Storyboard | None:
    """Take the oldest storyboard that waits to be joined, for *lease_s*; None if none does."""
    is_due = or_(storyboards.c.lease_until.is_(None), storyboards.c.lease_until <= uow.now)
    due = (
        select(storyboards.c.id)
        .where(IS_OPEN, storyboards.c.state == BoardState.JOINING, is_due)
        .order_by(storyboards.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = uow.conn.execute(due).first()
    if found is None:
        return None
    taken = {
        "attempt": storyboards.c.attempt + 1,
        "progress": 0.0,
        "lease_until": uow.now + lease_s,
    }
    query = update(storyboards).where(storyboards.c.id == found.id).values(taken)
    return _to_board(uow.conn.execute(query.returning(storyboards)).one())


def has_waiting(conn: Connection, *, now: float) -> bool:
    """Whether `take` would find one."""
    is_due = or_(storyboards.c.lease_until.is_(None), storyboards.c.lease_until <= now)
    query = select(storyboards.c.id).where(
        IS_OPEN, storyboards.c.state == BoardState.JOINING, is_due
    )
    return conn.execute(query.limit(1)).first() is not None


def renew(uow: UnitOfWork, taken: Storyboard, *, lease_s: float, progress: float) -> bool:
    """Keep what was taken; False: it is somebody else's, or nobody's, by now."""
    values = {"lease_until": uow.now + lease_s, "progress": progress}
    return uow.conn.execute(update(storyboards).where(*_fence(taken)).values(values)).rowcount == 1


def give_back(uow: UnitOfWork, taken: Storyboard) -> None:
    """Let another take it at once; nothing went wrong."""
    uow.conn.execute(update(storyboards).where(*_fence(taken)).values(lease_until=None))


def complete(uow: UnitOfWork, taken: Storyboard, result: JoinedClip) -> bool:
    """Record what was joined; False as in `renew`, and then it is to be deleted."""
    board = _held(uow, taken)
    if board is None:
        return False
    done = {"result": result.to_json(), "progress": 1.0, "lease_until": None}
    set_state(uow, board, BoardState.COMPLETED, finished_at=uow.now, **done)
    _tell(uow, board, EventType.STORYBOARD_COMPLETED)
    return True


def put_off(uow: UnitOfWork, taken: Storyboard, *, code: str, message: str, until: float) -> None:
    """Record that joining failed, and is tried again at *until*."""
    values = {
        "failures": storyboards.c.failures + 1,
        "lease_until": until,
        "error_code": code,
        "error_message": message,
    }
    uow.conn.execute(update(storyboards).where(*_fence(taken)).values(values))


def give_up(uow: UnitOfWork, taken: Storyboard, *, code: str, message: str) -> None:
    """Record that the shots cannot be joined."""
    board = _held(uow, taken)
    if board is not None:
        _fail(uow, board, code=code, message=message)


def remove(uow: UnitOfWork, board: Storyboard) -> None:
    """Delete a storyboard that is over, and its shots; tasks stay."""
    assert board.state not in OPEN, "the caller has looked"
    uow.conn.execute(delete(shot_rows).where(shot_rows.c.storyboard_id == board.id))
    uow.conn.execute(delete(storyboards).where(storyboards.c.id == board.id))


def _fail(uow: UnitOfWork, board: Storyboard, *, code: str, message: str) -> None:
    error = {"error_code": code, "error_message": message, "lease_until": None}
    set_state(uow, board, BoardState.FAILED, finished_at=uow.now, **error)
    _tell(uow, board, EventType.STORYBOARD_FAILED)


def _tell(uow: UnitOfWork, board: Storyboard, event_type: EventType) -> None:
    webhooks.record(
        uow,
        tenant_id=board.tenant_id,
        event_type=event_type,
        subject=board.public_id,
        url=board.webhook_url,
    )


def _held(uow: UnitOfWork, taken: Storyboard) -> Storyboard | None:
    row = uow.conn.execute(select(storyboards).where(*_fence(taken)).with_for_update()).first()
    return None if row is None else _to_board(row)


def _fence(taken: Storyboard) -> tuple[Any, ...]:
    return (
        storyboards.c.id == taken.id,
        storyboards.c.state == BoardState.JOINING,
        storyboards.c.revision == taken.revision,
        storyboards.c.attempt == taken.attempt,
    )


def _named(public_id: str, tenant_id: int) -> tuple[Any, ...]:
    return storyboards.c.public_id == public_id, storyboards.c.tenant_id == tenant_id


def _shot_values(shot: NewShot) -> dict[str, Any]:
    job = shot.job
    return {
        "state": ShotState(job.state.value) if job.is_terminal else ShotState.ACTIVE,
        "duration_s": job.spec.duration_s,
        "crossfade_s": shot.crossfade_s,
        "price_credits": job.price_credits,
        "job_id": job.id,
        "task_id": job.public_id,
    }


def _to_board(row: Any) -> Storyboard:
    values = dict(row._mapping)  # noqa: SLF001  the documented way to a row's names
    result = values["result"]
    values["state"] = BoardState(values["state"])
    values["result"] = None if result is None else JoinedClip.from_json(result)
    return Storyboard(**values)


def _to_shot(row: Any, job: Job | None) -> Shot:
    return Shot(
        number=row.number,
        state=ShotState(row.state),
        duration_s=row.duration_s,
        crossfade_s=row.crossfade_s,
        price_credits=row.price_credits,
        task_id=row.task_id,
        job=job,
    )
