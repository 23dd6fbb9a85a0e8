"""Values and databases for tests, whole and valid, of which a test states only what it is about."""

import itertools
from pathlib import Path
from typing import Any

from tests.databases import empty_database
from vidmill.domain.clip import Asset, ClipResult, ClipSpec, Resolution, Size
from vidmill.domain.ids import task_id
from vidmill.domain.job import Job
from vidmill.store import accounts, jobs
from vidmill.store.session import Database, open_database

START = 1_800_000_000.0
"""Where a test's clock begins, Unix seconds."""

_numbers = itertools.count(1)


class FakeClock:
    """A clock that stands until it is told to go on."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def make_spec(**changes: Any) -> ClipSpec:
    """Return the spec of a 3 s, 480p clip of the tiny model."""
    values: dict[str, Any] = {
        "prompt": "a red ball bouncing on a blue background",
        "negative_prompt": "",
        "profile": "tiny",
        "resolution": Resolution.P480,
        "size": Size(832, 480),
        "native": Size(80, 48),
        "duration_s": 3.0,
        "fps": 24,
        "native_fps": 4,
        "num_frames": 13,
        "steps": 12,
        "guidance_scale": 3.0,
        "guidance_scale_2": 2.0,
        "flow_shift": 3.0,
        "seed": 7,
    }
    return ClipSpec(**{**values, **changes})


def make_new_job(**changes: Any) -> jobs.NewJob:
    """Return a job of tenant 1 in pool `main`, with a public id of its own.

    Its user is the tenant's `default`, whose number `make_database` lets be the tenant's.
    """
    values: dict[str, Any] = {
        "user_id": changes.get("tenant_id", 1),
        "public_id": task_id(int(START * 1000), next(_numbers)),
        "tenant_id": 1,
        "pool": "main",
        "spec": make_spec(),
        "request": {"prompt": "a red ball bouncing on a blue background", "duration": 3.0},
        "est_cost_s": 10.0,
    }
    return jobs.NewJob(**{**values, **changes})


def make_result(**changes: Any) -> ClipResult:
    """Return the result of `make_spec`'s clip, with one asset."""
    video = Asset(
        key="t2v_0/1/clip.mp4",
        content_type="video/mp4",
        size_bytes=1000,
        md5="0" * 32,
        sha256="0" * 64,
        width_px=832,
        height_px=480,
    )
    values: dict[str, Any] = {
        "assets": {"video": video},
        "size": Size(832, 480),
        "native": Size(80, 48),
        "native_fps": 4,
        "native_frames": 13,
        "fps": 24,
        "num_frames": 72,
        "duration_s": 3.0,
        "seed": 7,
    }
    return ClipResult(**{**values, **changes})


def make_database(
    tmp_path: Path, clock: FakeClock | None = None, *, tenant_count: int = 1
) -> Database:
    """Return a migrated database with tenants 1..*tenant_count*, which the caller closes.

    Its kind is the test's (see `tests.databases`); a SQLite file is *tmp_path*'s `vidmill.db`.
    """
    db = open_database(empty_database(tmp_path), clock=clock)
    names = ["default", *(f"tenant-{number}" for number in range(2, tenant_count + 1))]
    db.write(lambda uow: [accounts.ensure_tenant(uow, name) for name in names])
    return db


def make_job(db: Database, **changes: Any) -> Job:
    """Return a job just accepted."""
    return db.write(lambda uow: jobs.insert(uow, make_new_job(**changes)))
