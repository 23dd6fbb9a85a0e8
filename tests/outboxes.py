"""Webhook endpoints and what lies in their outbox, for tests."""

import itertools
from typing import Any

from vidmill.domain.job import Job
from vidmill.domain.webhook import NATIVE_TYPES
from vidmill.store import deliveries, jobs, webhooks
from vidmill.store.deliveries import Delivery
from vidmill.store.session import Database
from vidmill.store.webhooks import Endpoint

_numbers = itertools.count(1)


def make_endpoint(db: Database, **changes: Any) -> Endpoint:
    """Return an endpoint of tenant 1 that wants the native types."""
    values = {
        "tenant_id": 1,
        "public_id": f"we_{next(_numbers):024x}",
        "url": "https://hooks.example/",
        "description": "",
        "events": NATIVE_TYPES,
        "secret": "ab" * 32,
    }
    return db.write(lambda uow: webhooks.create(uow, **{**values, **changes}))


def endpoint_now(db: Database, endpoint: Endpoint) -> Endpoint:
    found = db.read(lambda conn: webhooks.find(conn, endpoint.tenant_id, endpoint.public_id))
    assert found is not None
    return found


def default_of(db: Database, tenant_id: int = 1) -> Endpoint:
    found = db.read(lambda conn: webhooks.find(conn, tenant_id, webhooks.DEFAULT))
    assert found is not None
    return found


def outbox(db: Database, endpoint: Endpoint) -> list[Delivery]:
    """Return all deliveries of *endpoint*, the oldest first."""
    return db.read(lambda conn: deliveries.page(conn, endpoint.id, limit=1000))[::-1]


def take(db: Database, endpoint: Endpoint, limit: int = 4) -> list[Delivery]:
    return db.write(lambda uow: deliveries.take(uow, endpoint.id, limit=limit, lease_s=60))


def record(db: Database, subject: str, *, tenant_id: int = 1, url: str | None = None) -> None:
    """Let a batch be told of, which needs no job."""
    db.write(
        lambda uow: webhooks.record(
            uow,
            tenant_id=tenant_id,
            event_type="t2v.batch.completed",
            subject=subject,
            url=url,
        )
    )


def end(db: Database, job: Job, outcome: jobs.Outcome) -> None:
    """Claim *job*, the only one queued, and end its run."""
    claimed = db.write(
        lambda uow: jobs.claim(uow, pool="main", worker="w", profile="tiny", lease_s=30)
    )
    assert claimed is not None
    assert claimed.id == job.id
    db.write(
        lambda uow: jobs.settle(
            uow, job_id=job.id, attempt=claimed.attempt, worker="w", outcome=outcome
        )
    )
