"""The API key that `vidmill up` keeps for this machine's user."""

import json
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from vidmill.domain.api_key import hint_of, new_key
from vidmill.domain.permission import ALL_SCOPES
from vidmill.services.access import hash_key
from vidmill.stack.front import url_of
from vidmill.store import accounts
from vidmill.store.session import UnitOfWork
from vidmill.wiring import App

TENANT = "default"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What a client needs; `connection.json` in the data folder."""

    url: str
    api_key: str


def connect(app: App, listener: socket.socket) -> Connection:
    """Write `connection.json` with the URL and a key that works; an old key that does is kept."""
    app.db.write(lambda uow: _limit_queue(uow, app.settings.queue_max))
    path = app.settings.data_dir / "connection.json"
    key = _working_key(app, path) or _stored_key(app)
    connection = Connection(url=url_of(listener), api_key=key)
    _write_private(path, json.dumps({"url": connection.url, "api_key": connection.api_key}))
    return connection


def _limit_queue(uow: UnitOfWork, queue_max: int) -> None:
    plan = accounts.find_plan(uow.conn, accounts.DEFAULT)
    assert plan is not None, "a migration made it"
    if plan.cap_queued != queue_max:
        accounts.save_plan(uow, replace(plan, cap_queued=queue_max))


def _working_key(app: App, path: Path) -> str | None:
    try:
        key = str(json.loads(path.read_text())["api_key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    found = app.db.read(lambda conn: accounts.find_key(conn, hash_key(key)))
    may_all = found and found.grant.scopes == ALL_SCOPES and found.grant.expires_at is None
    return key if may_all else None


def _stored_key(app: App) -> str:
    key = new_key()

    def write(uow: UnitOfWork) -> None:
        tenant = accounts.ensure_tenant(uow, TENANT)
        grant = accounts.Grant(hint=hint_of(key))
        accounts.create_key(uow, tenant.id, "made by vidmill up", hash_key(key), grant=grant)

    app.db.write(write)
    return key


def _write_private(path: Path, text: str) -> None:
    """Replace *path* atomically, readable by its owner alone from the first byte on."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
