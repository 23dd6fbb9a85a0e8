"""Vidmill's embedded API alone, as `vidmill up` runs it: SQLite (WAL, synchronous FULL), keys."""

import asyncio
import sys
from pathlib import Path

import uvicorn

from vidmill import wiring
from vidmill.api.app import create_app
from vidmill.services.access import hash_key
from vidmill.settings import Settings
from vidmill.store import accounts, migrate
from vidmill.store.session import UnitOfWork
from vidmill.telemetry import configure_logging

KEY = "vm_bench"


def main(folder: str, port: str) -> None:
    settings = Settings.model_validate({"data_dir": Path(folder), "profile": "tiny"})
    configure_logging(settings.log_level, settings.log_format)
    settings.data_dir.mkdir(parents=True)
    migrate.upgrade(settings.effective_database_url)
    app = wiring.build(settings)

    def prepare(uow: UnitOfWork) -> None:
        tenant = accounts.ensure_tenant(uow, "default", cap_queued=10**9)
        accounts.create_key(uow, tenant.id, "bench", hash_key(KEY))

    app.db.write(prepare)
    config = uvicorn.Config(create_app(app), port=int(port), log_level="warning", access_log=False)
    asyncio.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
