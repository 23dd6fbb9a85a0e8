"""Accepting jobs: as work of their own, behind an identical job, or answered at once."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, select, text
from sqlalchemy.dialects import postgresql, sqlite

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import QueueFull, QuotaExceeded
from vidmill.domain.job import MAX_ATTEMPTS, Job, JobState, Lane, Phase
from vidmill.store import cache, daily
from vidmill.store.account_tables import tenants
from vidmill.store.batch_moves import NUM_PAUSED
from vidmill.store.direct import Direct
from vidmill.store.models import jobs
from vidmill.store.unit import UnitOfWork


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job about to be accepted; with *not_before* in the future it begins delayed.

    Attributes:
        cache_key: What identical requests of the tenant have in common; None = always run.
        price_credits: Its price if it is rendered.
        cached_price_credits: Its price if files that are there already answer it.
    """

    public_id: str
    tenant_id: int
    user_id: int
    pool: str
    spec: ClipSpec
    request: Mapping[str, Any]
    est_cost_s: float
    lane: Lane = Lane.STANDARD
    max_attempts: int = MAX_ATTEMPTS
    not_before: float | None = None
    client_reference: str | None = None
    parent: str | None = None
    cache_key: str | None = None
    price_credits: int = 0
    cached_price_credits: int = 0


_OWN = [name for name in NewJob.__dataclass_fields__ if name != "cached_price_credits"]
_PLACED = ("state", "phase", "progress", "finished_at", "result", "leader_id", "files_of")
_COLUMNS = [*_OWN, *_PLACED, "submitted_at", "attempt", "search_text", "lora"]

_INSERTS: Mapping[str, Callable[..., Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
_LED: Mapping[str, Any] = {
    "index_elements": [jobs.c.tenant_id, jobs.c.cache_key],
    "index_where": text(f"cache_key IS NOT NULL AND {cache.LIVE}"),
}
"""The index of leaders: whom somebody came before is told so by getting no row."""

_INSERT = {
    dialect: Direct(
        insert_into(jobs).on_conflict_do_nothing(**_LED).returning(jobs.c.id), columns=_COLUMNS
    )
    for dialect, insert_into in _INSERTS.items()
}
_WAITING = tenants.c.queued + NUM_PAUSED
_LIMITS = (_WAITING, tenants.c.cap_queued, tenants.c.clips_per_day)
_TENANT = Direct(select(*_LIMITS).where(tenants.c.id == bindparam("tenant")))
_FIRST_LOOK = Direct(select(*_LIMITS, cache.has_twin()).where(tenants.c.id == bindparam("tenant")))
"""All that most requests need to know, in one round trip."""

NEAR_CAP = 2000
"""Room above which it is not counted again after an insert: no few transactions fill it at once."""

_HELD_TENANT = select(tenants.c.id).where(tenants.c.id == bindparam("tenant"))
_HELD_TENANT = _HELD_TENANT.with_for_update(key_share=True)


def insert(uow: UnitOfWork, new: NewJob, cache_ttl_s: float = 0.0) -> Job:
    """Accept *new*, or find that its clip exists or is on its way.

    The job comes back queued or delayed; or following an identical one that is under way; or
    succeeded, with the files of one that did so in the last *cache_ttl_s* seconds.

    Raises:
        QueueFull: The tenant has as many jobs queued, or paused, as he may.
        QuotaExceeded: He has ordered as many clips today as he may.
    """
    while (job := _insert_once(uow, new, cache_ttl_s)) is None:
        """Of two identical requests at once this was the second; now the first can be seen."""
    return job


def insert_many(uow: UnitOfWork, news: Sequence[NewJob], cache_ttl_s: float = 0.0) -> list[Job]:
    """Accept all of *news*, one tenant's, as `insert` would one after the other.

    Raises:
        QueueFull, QuotaExceeded: They do not all fit; none was accepted.
    """
    if not news:
        return []
    while (found := _insert_many_once(uow, news, cache_ttl_s)) is None:
        """An identical request came meanwhile; now it can be seen."""
    return found


def num_waiting(conn: Connection, tenant_id: int) -> int:
    """Return how many of the tenant's jobs count against his cap: those queued, and those paused.

    If the paused ones did not, he could fill the queue, pause it and fill it again.
    """
    row = _TENANT.first(conn, {"tenant": tenant_id})
    assert row is not None, "a tenant is never deleted"
    return int(row[0])


def _insert_many_once(
    uow: UnitOfWork, news: Sequence[NewJob], cache_ttl_s: float
) -> list[Job] | None:
    (tenant_id,) = {new.tenant_id for new in news}
    keys = sorted({new.cache_key for new in news if new.cache_key})
    known = _Known(
        leaders=cache.leaders(uow, tenant_id, keys),
        originals=cache.originals(uow, tenant_id, keys, ttl_s=cache_ttl_s),
    )
    first, twins = known.sort(news)
    clips_per_day = _check_room(uow, tenant_id, coming=len(first))
    _check_day(uow, tenant_id, clips_per_day, coming=len(first))
    uow.conn.exec_driver_sql("SAVEPOINT batch")
    stored = {job.public_id: job for job in _store_many(uow, [_alone(new, uow) for new in first])}
    if len(stored) < len(first):  # give the tenant's row back before jobs are locked anew
        uow.conn.exec_driver_sql("ROLLBACK TO batch")
        return None
    _check_room(uow, tenant_id)
    led = {new.cache_key: stored[new.public_id] for new in first}
    placed = [known.place(new, led, uow) for new in twins]
    stored |= {job.public_id: job for job in _store_many(uow, placed)}
    _check_day_exactly(uow, tenant_id, clips_per_day)
    uow.conn.exec_driver_sql("RELEASE batch")
    return [stored[new.public_id] for new in news]


@dataclass(frozen=True)
class _Known:
    """What there was of each cache key before a batch."""

    leaders: Mapping[str, cache.Leader]
    originals: Mapping[str, Job]

    def sort(self, news: Sequence[NewJob]) -> tuple[list[NewJob], list[NewJob]]:
        """Return those that will be rendered, and their twins."""
        first: list[NewJob] = []
        twins: list[NewJob] = []
        lanes: dict[str, Lane] = {}
        for new in news:
            key = new.cache_key
            leader = self.leaders.get(key) if key else None
            if key is None:
                first.append(new)
            elif leader is not None:
                apart = leader.is_slower_than(new.lane)
                (first if apart else twins).append(replace(new, cache_key=None) if apart else new)
            elif key in self.originals or lanes.get(key, -1) in range(new.lane + 1):
                twins.append(new)
            else:
                first.append(new if key not in lanes else replace(new, cache_key=None))
                lanes.setdefault(key, new.lane)
        return first, twins

    def place(self, new: NewJob, led: Mapping[str | None, Job], uow: UnitOfWork) -> dict[str, Any]:
        key = new.cache_key
        assert key is not None, "only what has a key has a twin"
        if key in self.leaders:
            return _behind(new, self.leaders[key].id, uow)
        found = self.originals.get(key) or led[key]
        if found.state is JobState.SUCCEEDED:
            return _answered(new, found, uow)
        return _behind(new, found.leader_id or found.id, uow)


def _insert_once(uow: UnitOfWork, new: NewJob, cache_ttl_s: float) -> Job | None:
    """Return None if what was seen of identical jobs was not true any more: look again."""
    asked = {"tenant": new.tenant_id, "key": new.cache_key}
    look = _FIRST_LOOK.first(uow.conn, asked | cache.since(uow, cache_ttl_s))
    assert look is not None, "whoever holds a key has a tenant"
    queued, cap_queued, clips_per_day, has_twin = look
    if has_twin:
        twin = cache.leader(uow, new.tenant_id, key := str(new.cache_key))
        if twin is None:
            found = cache.original(uow, new.tenant_id, key, ttl_s=cache_ttl_s)
            return _store(uow, _answered(new, found, uow)) if found else None
        if not twin.is_slower_than(new.lane):
            return _store_in_day(uow, _behind(new, twin.id, uow), clips_per_day)
        new = replace(new, cache_key=None)  # who pays for a faster lane waits in no slower one
    _refuse_beyond(cap_queued, queued + 1)
    job = _store_in_day(uow, _alone(new, uow), clips_per_day)
    if cap_queued - queued < NEAR_CAP:
        _check_room(uow, new.tenant_id)
    return job


def _check_room(uow: UnitOfWork, tenant_id: int, *, coming: int = 0) -> int | None:
    """Refuse before the insert, which is cheap, and once more after it, which is exact.

    Before it another transaction may be adding too; after it the trigger holds the tenant's row.

    Returns:
        The tenant's clips a day, while its row is at hand.
    """
    row = _TENANT.first(uow.conn, {"tenant": tenant_id})
    assert row is not None, "whoever holds a key has a tenant"
    queued, cap_queued, clips_per_day = row
    _refuse_beyond(cap_queued, queued + coming, coming=coming)
    return None if clips_per_day is None else int(clips_per_day)


def _store_in_day(uow: UnitOfWork, values: dict[str, Any], clips_per_day: int | None) -> Job | None:
    left = _check_day(uow, values["tenant_id"], clips_per_day, coming=1)
    job = _store(uow, values)
    if left < NEAR_CAP:
        _check_day_exactly(uow, values["tenant_id"], clips_per_day)
    return job


def _check_day(
    uow: UnitOfWork, tenant_id: int, clips_per_day: int | None, *, coming: int = 0
) -> float:
    """Return how many clips more the tenant may order today; refuse if *coming* are too many."""
    if clips_per_day is None:
        return float("inf")
    ordered = daily.clips_of(uow.conn, tenant_id, now=uow.now)
    if ordered + coming > clips_per_day:
        more_at = daily.ends_at(uow.now)
        remedy = f"the next day begins in {(more_at - uow.now) / 3600:.1f} h"
        if coming > clips_per_day > 0:
            remedy = f"no day has room for {coming} at once; ask for fewer"
        raise QuotaExceeded(
            f"your plan allows {clips_per_day} clips a day, and these would be"
            f" {ordered + coming} since 00:00 UTC; {remedy}",
            retry_after_s=more_at - uow.now,
        )
    return clips_per_day - ordered


def _check_day_exactly(uow: UnitOfWork, tenant_id: int, clips_per_day: int | None) -> None:
    """Count once more, holding the tenant's row: followers and delayed jobs do not take it."""
    if clips_per_day is not None:
        uow.conn.execute(_HELD_TENANT, {"tenant": tenant_id})
        _check_day(uow, tenant_id, clips_per_day)


def _refuse_beyond(cap_queued: int, queued: int, *, coming: int = 1) -> None:
    if queued <= cap_queued:
        return
    if coming > cap_queued > 0:
        raise QuotaExceeded(
            f"your plan lets {cap_queued} tasks wait, and these are {coming}; ask for fewer at once"
        )
    raise QueueFull(
        f"{queued} of your tasks would wait, those of paused batches included, and"
        f" {cap_queued} is the limit; try again when some have finished"
    )


def _alone(new: NewJob, uow: UnitOfWork) -> dict[str, Any]:
    """Return the values of a job that will be rendered."""
    is_delayed = new.not_before is not None and new.not_before > uow.now
    return _values(new, uow, state=JobState.DELAYED if is_delayed else JobState.QUEUED)


def _behind(new: NewJob, leader_id: int, uow: UnitOfWork) -> dict[str, Any]:
    """Return the values of a follower. It holds the whole price, as it may yet be rendered.

    Otherwise whoever ordered twice and cancelled the first would have the second for nothing.
    """
    return _values(new, uow, state=JobState.FOLLOWING, leader_id=leader_id)


def _answered(new: NewJob, original: Job, uow: UnitOfWork) -> dict[str, Any]:
    new = replace(new, price_credits=new.cached_price_credits)
    over = {"phase": Phase.DONE, "progress": 1.0, "finished_at": uow.now}
    owner = original.files_of or original.public_id
    result = original.result
    return _values(new, uow, state=JobState.SUCCEEDED, result=result, files_of=owner, **over)


def _values(new: NewJob, uow: UnitOfWork, **placed: Any) -> dict[str, Any]:
    """Return the fields of a `Job`, all but its id."""
    values = {name: getattr(new, name) for name in _OWN}
    values |= {"phase": Phase.WAITING, "progress": 0.0, "submitted_at": uow.now, "attempt": 0}
    return {**values, "finished_at": None, "result": None, "leader_id": None, "files_of": None} | (
        placed
    )


def _store(uow: UnitOfWork, values: dict[str, Any]) -> Job | None:
    result = values["result"]
    texts = {
        "spec": json.dumps(values["spec"].to_json()),
        "request": json.dumps(dict(values["request"])),
        "result": None if result is None else json.dumps(result.to_json()),
        "search_text": _search_text(values),
        "lora": _lora_key(values),
    }
    direct = _INSERT[uow.conn.dialect.name]
    row = direct.first(uow.conn, {**values, **texts})
    return None if row is None else Job(id=row[0], **values)


def _store_many(uow: UnitOfWork, rows: Sequence[dict[str, Any]]) -> Iterable[Job]:
    """Store *rows*, and return those jobs that nobody came before."""
    if not rows:
        return []
    plain = [
        {
            **values,
            "spec": values["spec"].to_json(),
            "request": dict(values["request"]),
            "result": values["result"] and values["result"].to_json(),
            "search_text": _search_text(values),
            "lora": _lora_key(values),
        }
        for values in rows
    ]
    ids = {row.public_id: row.id for row in _STORE_ROWS[uow.conn.dialect.name](uow, plain)}
    return [
        Job(id=ids[values["public_id"]], **values) for values in rows if values["public_id"] in ids
    ]


def _store_rows(uow: UnitOfWork, rows: Sequence[dict[str, Any]]) -> Iterable[Any]:
    query = sqlite.insert(jobs).on_conflict_do_nothing(**_LED)
    return uow.conn.execute(query.returning(jobs.c.id, jobs.c.public_id), rows)


def _store_recordset(uow: UnitOfWork, rows: Sequence[dict[str, Any]]) -> Iterable[Any]:
    """Send all rows as one value: 200,000 parameters took several times as long (measured)."""
    dialect = uow.conn.dialect
    types = ", ".join(f"{name} {jobs.c[name].type.compile(dialect)}" for name in _COLUMNS)
    names = ", ".join(_COLUMNS)
    query = text(
        f"INSERT INTO jobs ({names}) SELECT {names}"  # noqa: S608  our own columns
        f" FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r({types})"
        f" ON CONFLICT (tenant_id, cache_key) WHERE cache_key IS NOT NULL AND {cache.LIVE}"
        " DO NOTHING RETURNING id, public_id"
    )
    return uow.conn.execute(query, {"rows": json.dumps(rows)})


_STORE_ROWS: Mapping[str, Callable[[UnitOfWork, Sequence[dict[str, Any]]], Iterable[Any]]] = {
    "sqlite": _store_rows,
    "postgresql": _store_recordset,
}


def _lora_key(values: Mapping[str, Any]) -> str | None:
    lora = values["spec"].lora
    return None if lora is None else str(lora.key)


def _search_text(values: Mapping[str, Any]) -> str:
    prompt = values["request"].get("prompt") or ""
    return f"{prompt}\n{values['client_reference'] or ''}".casefold()
