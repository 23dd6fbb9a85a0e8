"""Vidmill's API alone, with keys.

On SQLite (WAL, synchronous FULL) as `vidmill up` runs it, or, given the URLs of a database and a
broker, as `vidmill serve` does.
"""

import asyncio
import sys
from pathlib import Path

from vidmill import wiring
from vidmill.api.serving import make_server, share_interpreter
from vidmill.services.access import hash_key
from vidmill.settings import Settings
from vidmill.store import accounts, migrate
from vidmill.store.session import UnitOfWork
from vidmill.telemetry import configure_logging

KEY = "vm_bench"
LIMITED_KEY = "vm_bench_limited"
"""Of a tenant whose plan limits every rate, each too high to be met."""


def main(
    folder: str, port: str, database_url: str = "", broker_url: str = "", limits_url: str = ""
) -> None:
    settings = Settings.model_validate(
        {
            "data_dir": Path(folder),
            "profile": "tiny",
            "database_url": database_url,
            "broker_url": broker_url,
            "limits_url": limits_url,
            "queue_total_max": 10**9,
        }
    )
    configure_logging(settings.log_level, settings.log_format)
    settings.data_dir.mkdir(parents=True)
    migrate.upgrade(settings.effective_database_url)
    app = wiring.build(settings)

    def prepare(uow: UnitOfWork) -> None:
        accounts.save_plan(uow, accounts.Plan(name="default", cap_queued=10**9))
        tenant = accounts.ensure_tenant(uow, "default")
        accounts.create_key(uow, tenant.id, "bench", hash_key(KEY))
        limited_plan = accounts.Plan(
            name="limited",
            cap_queued=10**9,
            key_submits_per_min=10**9,
            key_reads_per_min=10**9,
            tenant_submits_per_min=10**9,
            tenant_reads_per_min=10**9,
        )
        accounts.save_plan(uow, limited_plan)
        limited = accounts.ensure_tenant(uow, "limited", plan="limited")
        accounts.create_key(uow, limited.id, "bench", hash_key(LIMITED_KEY))

    app.db.write(prepare)
    share_interpreter()
    asyncio.run(make_server(app, port=int(port), log_level="warning").serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
