"""The composition root: who meets whom. The only reader of the plug-in tables."""

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidmill.domain.devices import devices_of
from vidmill.domain.ports import BlobStore, EventBus, TicketSource
from vidmill.domain.profile import ModelProfile
from vidmill.engines import ENGINES, RANKED_ENGINES
from vidmill.engines.lora_file import read_facts
from vidmill.profiles import load_profile, resolve_source
from vidmill.queueing import open_bus, open_tickets
from vidmill.services.joining import Tally
from vidmill.services.loras import Loras
from vidmill.settings import Settings
from vidmill.storage import open_blobs
from vidmill.store import migrate
from vidmill.store.session import Database, open_database

CALLS_A_LEASE = 3
"""A worker must hear that its database is silent while some of its lease is left."""


class CannotStart(Exception):
    """Something the person who starts it can mend; the message says how."""


@dataclass(frozen=True, kw_only=True)
class App:
    """Everything an entry point needs. Whoever built it closes it.

    Attributes:
        signing_secret: HMAC key of file links and cursors.
        clock: Unix seconds; for links and caches. Leases go by the database's own clock.
        webhook_outcomes: Attempts at deliveries that this process made, by what came of them.
        joins: The same of storyboards.
    """

    settings: Settings
    db: Database
    blobs: BlobStore
    bus: EventBus
    tickets: TicketSource
    profile: ModelProfile
    signing_secret: bytes
    clock: Callable[[], float] = time.time
    webhook_outcomes: Counter[str] = field(default_factory=Counter)
    joins: Tally = field(default_factory=Tally)

    def close(self) -> None:
        """Close in reverse order of opening."""
        self.tickets.close()
        self.bus.close()
        self.db.close()


def build(settings: Settings) -> App:
    """Open everything that *settings* name. The database must have been migrated."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.run_dir.mkdir(exist_ok=True, mode=0o700)
    return App(
        settings=settings,
        db=open_database(
            settings.effective_database_url,
            connections=settings.database_connections,
            patience_s=settings.lease_s / CALLS_A_LEASE,
        ),
        blobs=open_blobs(settings.effective_storage_url),
        bus=open_bus(settings.effective_events_url),
        tickets=open_tickets(settings.effective_queue_url),
        profile=load_profile(settings.profile),
        signing_secret=signing_secret(settings),
    )


def check_schema(settings: Settings) -> None:
    """See that the database is there and at this program's schema.

    Raises:
        CannotStart: It is at another one; the message says what to do.
        ServiceUnavailable: It cannot be asked now.
    """
    found, wanted = migrate.current(settings.effective_database_url), migrate.head()
    if found == wanted:
        return
    if found is not None and found > wanted:  # revisions are numbered
        raise CannotStart(
            f"the database is at schema {found}, newer than this program's {wanted}: run the newer"
            " release of Vidmill"
        )
    state = "empty" if found is None else f"at schema {found}"
    raise CannotStart(
        f"the database is {state}, and this program needs schema {wanted}: run `vidmill migrate`"
    )


def loras_of(app: App) -> Loras:
    """Return the register of LoRA pairs, which reads uploaded files without a tensor library."""
    return Loras(
        db=app.db,
        blobs=app.blobs,
        profile=app.profile,
        read_facts=read_facts,
        clock=app.clock,
        rank_max=app.settings.lora_rank_max,
    )


def engine_path(settings: Settings, profile: ModelProfile) -> str:
    """Return `module:Class` of the engine that *profile* names, for the devices there are.

    Raises:
        CannotStart: There is none of that name.
    """
    if profile.engine not in ENGINES:
        known = ", ".join(sorted(ENGINES))
        raise CannotStart(
            f"profile {profile.name} wants the engine {profile.engine!r}; there are {known}"
        )
    is_ranked = profile.remote is None and len(devices_of(settings.device)) > 1
    return (RANKED_ENGINES if is_ranked else ENGINES)[profile.engine]


def engine_order(settings: Settings, profile: ModelProfile) -> dict[str, Any]:
    """Return what the engine of *profile* is made with: its source, and its keyword arguments."""
    if profile.remote is not None:
        key = settings.remote_api_key.get_secret_value()
        url = settings.remote_url or profile.remote.url
        return {"source": url, "options": {"api_key": key}}
    options = {
        "device": settings.device,
        "threads": settings.torch_threads,
        "layout": settings.layout,
    }
    return {"source": resolve_source(profile, settings.model_path), "options": options}


def signing_secret(settings: Settings) -> bytes:
    """Return the configured secret, or the data folder's own, made at first use (mode 0600)."""
    configured = settings.signing_secret.get_secret_value()
    if configured:
        return configured.encode()
    return _kept_secret(settings.data_dir / "signing.key")


def _kept_secret(path: Path) -> bytes:
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    try:
        os.link(fresh, path)  # fails if another process was first: then its secret stands
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_text().encode()
