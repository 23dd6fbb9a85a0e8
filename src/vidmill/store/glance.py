"""The read behind every poll: what `jobs.get` does, by the short way (see `store.direct`).

A test holds the two reads equal.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, bindparam, select

from vidmill.domain.clip import ClipResult, ClipSpec
from vidmill.domain.job import Job, JobState, Lane, Phase
from vidmill.store.direct import Direct
from vidmill.store.models import JOB_COLUMNS, jobs

SPECS_KEPT = 4096
"""Specs and requests never change, and their tasks are asked about many times."""

_BY_PUBLIC_ID = Direct(
    select(*JOB_COLUMNS).where(
        jobs.c.public_id == bindparam("public_id"), jobs.c.tenant_id == bindparam("tenant_id")
    )
)
_NAMES = tuple(column.name for column in JOB_COLUMNS)


def get(conn: Connection, public_id: str, tenant_id: int) -> Job | None:
    """Return the tenant's job, or None."""
    row = _BY_PUBLIC_ID.first(conn, {"public_id": public_id, "tenant_id": tenant_id})
    return None if row is None else _to_job(dict(zip(_NAMES, row, strict=True)))


def _to_job(values: dict[str, Any]) -> Job:
    result = values["result"]
    values["lane"] = Lane(values["lane"])
    values["state"] = JobState(values["state"])
    values["phase"] = Phase(values["phase"])
    values["is_cancel_requested"] = bool(values["is_cancel_requested"])
    # JSON is text on SQLite, and parsed already on PostgreSQL.
    values["spec"] = _spec(values["spec"])
    values["request"] = _request(values["request"])
    values["result"] = None if result is None else _result(result)
    return Job(**values)


def _spec(value: str | dict[str, Any]) -> ClipSpec:
    return _spec_of_text(value) if isinstance(value, str) else ClipSpec.from_json(value)


@lru_cache(maxsize=SPECS_KEPT)
def _spec_of_text(text: str) -> ClipSpec:
    return ClipSpec.from_json(json.loads(text))


def _request(value: str | dict[str, Any]) -> Mapping[str, Any]:
    return _request_of_text(value) if isinstance(value, str) else value


@lru_cache(maxsize=SPECS_KEPT)
def _request_of_text(text: str) -> Mapping[str, Any]:
    return MappingProxyType(json.loads(text))


def _result(value: str | dict[str, Any]) -> ClipResult:
    return ClipResult.from_json(json.loads(value) if isinstance(value, str) else value)
