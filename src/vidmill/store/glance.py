"""The read behind every poll: what `jobs.get` does, by the short way (see `store.direct`).

A test holds the two reads equal.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import ARRAY, Connection, Text, any_, bindparam, cast, select

from vidmill.domain.clip import ClipResult, ClipSpec
from vidmill.domain.job import Job, JobState, Lane, Phase
from vidmill.store.direct import Direct
from vidmill.store.models import IS_SHOWN, JOB_COLUMNS, jobs

SPECS_KEPT = 4096
"""Specs and requests never change, and their tasks are asked about many times."""

_JSON = frozenset({"spec", "request", "result"})
_COLUMNS = tuple(
    cast(column, Text).label(column.name) if column.name in _JSON else column
    for column in JOB_COLUMNS
)
"""JSON as text, whose parsed form is kept: a server's driver would parse it anew for each poll."""

_BY_PUBLIC_ID = Direct(
    select(*_COLUMNS).where(
        jobs.c.public_id == bindparam("public_id"),
        jobs.c.tenant_id == bindparam("tenant_id"),
        IS_SHOWN,
    )
)
_BY_PUBLIC_IDS = Direct(
    select(*_COLUMNS).where(
        jobs.c.public_id == any_(bindparam("public_ids", type_=ARRAY(Text))), IS_SHOWN
    )
)
"""For a server: one statement for any number, so that it is prepared once."""
_NAMES = tuple(column.name for column in JOB_COLUMNS)


def get(conn: Connection, public_id: str, tenant_id: int) -> Job | None:
    """Return the tenant's job, or None."""
    row = _BY_PUBLIC_ID.first(conn, {"public_id": public_id, "tenant_id": tenant_id})
    return None if row is None else _to_job(dict(zip(_NAMES, row, strict=True)))


def get_many(conn: Connection, public_ids: Sequence[str]) -> dict[str, Job]:
    """Return those jobs there are, whoever owns them, by public id, in one statement.

    On PostgreSQL; a read of SQLite costs no round trip that could be shared.
    """
    rows = _BY_PUBLIC_IDS.all(conn, {"public_ids": list(public_ids)})
    found = [_to_job(dict(zip(_NAMES, row, strict=True))) for row in rows]
    return {job.public_id: job for job in found}


def _to_job(values: dict[str, Any]) -> Job:
    result = values["result"]
    values["lane"] = Lane(values["lane"])
    values["state"] = JobState(values["state"])
    values["phase"] = Phase(values["phase"])
    values["is_cancel_requested"] = bool(values["is_cancel_requested"])
    values["spec"] = _spec_of_text(values["spec"])
    values["request"] = _request_of_text(values["request"])
    values["result"] = None if result is None else ClipResult.from_json(json.loads(result))
    return Job(**values)


@lru_cache(maxsize=SPECS_KEPT)
def _spec_of_text(text: str) -> ClipSpec:
    return ClipSpec.from_json(json.loads(text))


@lru_cache(maxsize=SPECS_KEPT)
def _request_of_text(text: str) -> Mapping[str, Any]:
    return MappingProxyType(json.loads(text))
