"""Webhook endpoints: who is told, what he was told, and telling again. Both colours."""

import builtins
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import quote

from vidmill.client._actions import Flow, Request
from vidmill.client._async_driver import AsyncDriver
from vidmill.client._calls import Calls, creating, deleting, getting, posting
from vidmill.client._driver import Driver
from vidmill.client._webhook_models import (
    DeliveryPage,
    EndpointList,
    Replay,
    WebhookDelivery,
    WebhookEndpoint,
)

WEBHOOKS = "/v1/t2v/webhooks"

DeliveryFilter = Literal["pending", "delivered", "dead"]


class EndpointChanges(TypedDict, total=False):
    """What to change; the rest stays. `enabled=True` also forgets past failures."""

    url: str
    events: builtins.list[str]
    description: str
    enabled: bool


@dataclass(frozen=True)
class WebhooksFlows:
    """The operations, each made with *calls*."""

    calls: Calls

    def create(
        self, url: str, events: Sequence[str] | None, description: str
    ) -> Flow[WebhookEndpoint]:
        body: dict[str, Any] = {"url": url, "description": description}
        body |= {"events": [*events]} if events is not None else {}
        return self.calls.ask(WebhookEndpoint, creating(WEBHOOKS, body))

    def all(self) -> Flow[builtins.list[WebhookEndpoint]]:
        return (yield from self.calls.ask(EndpointList, getting(WEBHOOKS))).data

    def get(self, webhook_id: str) -> Flow[WebhookEndpoint]:
        return self.calls.ask(WebhookEndpoint, getting(_path(webhook_id)))

    def update(self, webhook_id: str, changes: Mapping[str, Any]) -> Flow[WebhookEndpoint]:
        request = Request(method="PATCH", path=_path(webhook_id), body=changes)
        return self.calls.ask(WebhookEndpoint, request)

    def delete(self, webhook_id: str) -> Flow[None]:
        yield from self.calls.send(deleting(_path(webhook_id)))

    def rotate_secret(self, webhook_id: str) -> Flow[WebhookEndpoint]:
        return self.calls.ask(WebhookEndpoint, creating(_path(webhook_id, "rotate-secret")))

    def test(self, webhook_id: str) -> Flow[WebhookDelivery]:
        return self.calls.ask(WebhookDelivery, _once(_path(webhook_id, "test")))

    def deliveries(self, webhook_id: str, state: DeliveryFilter | None) -> Flow[None]:
        query = {"state": state} if state else {}
        return self.calls.items(DeliveryPage, _path(webhook_id, "deliveries"), query)

    def redeliver(self, webhook_id: str, delivery_id: str) -> Flow[WebhookDelivery]:
        part = f"deliveries/{quote(delivery_id, safe='')}/redeliver"
        return self.calls.ask(WebhookDelivery, posting(_path(webhook_id, part)))

    def replay(self, webhook_id: str, since: datetime, types: Sequence[str] | None) -> Flow[Replay]:
        body: dict[str, Any] = {"since": since.astimezone().isoformat()}
        body |= {"types": [*types]} if types is not None else {}
        return self.calls.ask(Replay, posting(_path(webhook_id, "replay"), body))


def _path(webhook_id: str, part: str = "") -> str:
    return f"{WEBHOOKS}/{quote(webhook_id, safe='')}" + (f"/{part}" if part else "")


def _once(path: str) -> Request:
    return Request(method="POST", path=path, is_repeatable=False)


class Webhooks:
    """Webhook endpoints; the key needs the scope `admin`."""

    def __init__(self, driver: Driver, calls: Calls) -> None:
        self._driver = driver
        self._flows = WebhooksFlows(calls)

    def create(
        self, url: str, *, events: Sequence[str] | None = None, description: str = ""
    ) -> WebhookEndpoint:
        """Register a receiver; the answer is where its `secret` is told.

        Args:
            url: Where to post; https, on the public internet, unless the operator allows more.
            events: Types to tell; None = all of tasks and batches.
            description: Your own words for it.
        """
        return self._driver.run(self._flows.create(url, events, description))

    def list(self) -> builtins.list[WebhookEndpoint]:
        """Return every receiver, the newest first."""
        return self._driver.run(self._flows.all())

    def get(self, webhook_id: str) -> WebhookEndpoint:
        """Return one receiver; of `default`, with its secret."""
        return self._driver.run(self._flows.get(webhook_id))

    def update(self, webhook_id: str, **changes: Unpack[EndpointChanges]) -> WebhookEndpoint:
        """Change a receiver, or switch it on or off."""
        return self._driver.run(self._flows.update(webhook_id, changes))

    def delete(self, webhook_id: str) -> None:
        """Delete a receiver and its log."""
        self._driver.run(self._flows.delete(webhook_id))

    def rotate_secret(self, webhook_id: str) -> WebhookEndpoint:
        """Give a receiver a new secret; for a day the old one signs beside it."""
        return self._driver.run(self._flows.rotate_secret(webhook_id))

    def test(self, webhook_id: str) -> WebhookDelivery:
        """Send a `webhook.test` now, and return what came back."""
        return self._driver.run(self._flows.test(webhook_id))

    def deliveries(
        self, webhook_id: str, *, state: DeliveryFilter | None = None
    ) -> Generator[WebhookDelivery, None, None]:
        """Iterate over what a receiver was told, the newest first."""
        return self._driver.news(self._flows.deliveries(webhook_id, state))

    def redeliver(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        """Make a delivery once more, under the same `webhook-id`."""
        return self._driver.run(self._flows.redeliver(webhook_id, delivery_id))

    def replay(
        self, webhook_id: str, *, since: datetime, types: Sequence[str] | None = None
    ) -> Replay:
        """Tell a receiver again all that happened since an instant of the last 30 days."""
        return self._driver.run(self._flows.replay(webhook_id, since, types))


class AsyncWebhooks:
    """Webhook endpoints; the key needs the scope `admin`, on asyncio."""

    def __init__(self, driver: AsyncDriver, calls: Calls) -> None:
        self._driver = driver
        self._flows = WebhooksFlows(calls)

    async def create(
        self, url: str, *, events: Sequence[str] | None = None, description: str = ""
    ) -> WebhookEndpoint:
        """Register a receiver; the answer is where its `secret` is told.

        Args:
            url: Where to post; https, on the public internet, unless the operator allows more.
            events: Types to tell; None = all of tasks and batches.
            description: Your own words for it.
        """
        return await self._driver.run(self._flows.create(url, events, description))

    async def list(self) -> builtins.list[WebhookEndpoint]:
        """Return every receiver, the newest first."""
        return await self._driver.run(self._flows.all())

    async def get(self, webhook_id: str) -> WebhookEndpoint:
        """Return one receiver; of `default`, with its secret."""
        return await self._driver.run(self._flows.get(webhook_id))

    async def update(self, webhook_id: str, **changes: Unpack[EndpointChanges]) -> WebhookEndpoint:
        """Change a receiver, or switch it on or off."""
        return await self._driver.run(self._flows.update(webhook_id, changes))

    async def delete(self, webhook_id: str) -> None:
        """Delete a receiver and its log."""
        await self._driver.run(self._flows.delete(webhook_id))

    async def rotate_secret(self, webhook_id: str) -> WebhookEndpoint:
        """Give a receiver a new secret; for a day the old one signs beside it."""
        return await self._driver.run(self._flows.rotate_secret(webhook_id))

    async def test(self, webhook_id: str) -> WebhookDelivery:
        """Send a `webhook.test` now, and return what came back."""
        return await self._driver.run(self._flows.test(webhook_id))

    def deliveries(
        self, webhook_id: str, *, state: DeliveryFilter | None = None
    ) -> AsyncGenerator[WebhookDelivery, None]:
        """Iterate over what a receiver was told, the newest first."""
        return self._driver.news(self._flows.deliveries(webhook_id, state))

    async def redeliver(self, webhook_id: str, delivery_id: str) -> WebhookDelivery:
        """Make a delivery once more, under the same `webhook-id`."""
        return await self._driver.run(self._flows.redeliver(webhook_id, delivery_id))

    async def replay(
        self, webhook_id: str, *, since: datetime, types: Sequence[str] | None = None
    ) -> Replay:
        """Tell a receiver again all that happened since an instant of the last 30 days."""
        return await self._driver.run(self._flows.replay(webhook_id, since, types))
