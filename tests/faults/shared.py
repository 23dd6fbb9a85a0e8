"""The servers that all stages of one run share, and what a stage gets of them."""

import functools
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.faults.servers import PrivatePostgres, PrivateRedis
from tests.services import require_rabbitmq
from vidmill.queueing.address import read_address
from vidmill.queueing.celery_app import new_app, queue_of
from vidmill.store import migrate


@dataclass(kw_only=True)
class Services:
    """The servers that all stages of one run share, each started at first use."""

    stack: ExitStack = field(default_factory=ExitStack)
    kept: Path | None = None

    @functools.cached_property
    def folder(self) -> str:
        """Return where all stages put their logs and files; short, as sockets lie below it."""
        if self.kept:
            self.kept.mkdir(parents=True, exist_ok=True)
            return str(self.kept.absolute())
        return self.stack.enter_context(tempfile.TemporaryDirectory(prefix="vidmill-faults-"))

    @functools.cached_property
    def postgres(self) -> PrivatePostgres:
        return self.stack.enter_context(PrivatePostgres())

    @functools.cached_property
    def redis(self) -> PrivateRedis:
        return self.stack.enter_context(PrivateRedis())

    @functools.cached_property
    def template(self) -> str:
        """Return the name of a database that is migrated; copying it takes a tenth of a second."""
        url = self.postgres.new_database()
        migrate.upgrade(url)
        return name_of(url)

    def __hash__(self) -> int:
        return id(self)


def delete_queue(url: str, target: tuple[str, int], pool: str) -> None:
    """Delete the queue of *pool* on the broker at *target*, past the proxy that *url* names."""
    port = urlsplit(url).port
    address = read_address(url.replace(f":{port}", f":{target[1]}"))
    with new_app(address).connection_for_write() as connection:
        queue_of(address, pool)(connection.default_channel).delete()


def name_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _redis(services: Services) -> tuple[Any, str, tuple[str, int]]:
    return services.redis, "redis://127.0.0.1:{port}/0", ("127.0.0.1", services.redis.port)


def _rabbitmq(_services: Services) -> tuple[Any, str, tuple[str, int]]:
    url = urlsplit(require_rabbitmq())
    account = f"{url.username or 'guest'}:{url.password or 'guest'}"
    target = (url.hostname or "127.0.0.1", url.port or 5672)
    return None, f"amqp://{account}@127.0.0.1:{{port}}//", target


BROKERS: Mapping[str, Callable[[Services], tuple[Any, str, tuple[str, int]]]] = {
    "redis": _redis,
    "rabbitmq": _rabbitmq,
}
"""The server where we own it, the URL by port, and where it really listens."""


def _postgresql(services: Services, _folder: Path) -> str:
    return services.postgres.new_database(services.template)


def _sqlite(_services: Services, folder: Path) -> str:
    url = f"sqlite:///{folder / 'vidmill.db'}"
    migrate.upgrade(url)
    return url


DATABASES: Mapping[str, Callable[[Services, Path], str]] = {
    "postgresql": _postgresql,
    "sqlite": _sqlite,
}
