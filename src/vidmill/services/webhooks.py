"""What a tenant does with his webhook endpoints, and with the log of their deliveries."""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vidmill.domain.clip import forbidden_characters
from vidmill.domain.errors import (
    DeliveryNotFound,
    FieldProblem,
    InvalidRequest,
    QuotaExceeded,
    UnsupportedOperation,
    WebhookDisabled,
    WebhookNotFound,
)
from vidmill.domain.webhook import (
    ENDPOINT_PREFIX,
    ENDPOINT_TYPES,
    SECRET_BYTES,
    DeliveryState,
    EventType,
    secret_text,
)
from vidmill.services.access import Caller
from vidmill.services.delivering import LEASE_S, Courier
from vidmill.services.idempotency import IdempotencyKey, is_first, owner_of
from vidmill.store import deliveries, webhooks
from vidmill.store.deliveries import KEPT_S, Delivery
from vidmill.store.session import Database, UnitOfWork
from vidmill.store.webhooks import DEFAULT, Endpoint

ENDPOINTS_MAX = 50
"""Of a tenant: each multiplies what the end of a task costs."""

DESCRIPTION_MAX_CHARS = 200
REPLAYED_AT_ONCE = 10_000
ROTATION_S = 86_400.0
"""How long the old secret goes on signing beside the new one."""

_NAME = re.compile("[a-z0-9_]{1,60}")
"""Nothing here is ever called otherwise, and no database takes every character."""


@dataclass(frozen=True, kw_only=True)
class Created:
    """An endpoint, or its new secret. `is_replay`: the same request made it before."""

    endpoint: Endpoint
    is_replay: bool = False


@dataclass(frozen=True, kw_only=True)
class Page:
    """Part of the log. `after` leads to the next page; None at the end."""

    deliveries: list[Delivery]
    after: int | None


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How many events are told again; `continue_from` is an instant, None once all are."""

    count: int
    continue_from: float | None


@dataclass(frozen=True, kw_only=True)
class Webhooks:
    """The endpoints of tenants, one tenant's never seen by another.

    Attributes:
        admit: Returns if a URL may be called now, else raises `InvalidRequest`.
    """

    db: Database
    courier: Courier
    admit: Callable[[str], Awaitable[None]]

    def endpoints(self, caller: Caller) -> list[Endpoint]:
        """Return the caller's endpoints, the newest first and `default` last."""
        return self.db.read(lambda conn: webhooks.of_tenant(conn, caller.tenant_id))

    def get(self, public_id: str, caller: Caller) -> Endpoint:
        """Return one endpoint.

        Raises:
            WebhookNotFound: There is none, or it is somebody else's.
        """
        if not _NAME.fullmatch(public_id):
            raise _no_endpoint(public_id)
        found = self.db.read(lambda conn: webhooks.find(conn, caller.tenant_id, public_id))
        if found is None:
            raise _no_endpoint(public_id)
        return found

    async def create(
        self,
        caller: Caller,
        *,
        url: str,
        events: Sequence[EventType],
        description: str = "",
        key: IdempotencyKey | None = None,
    ) -> Created:
        """Make an endpoint, with a secret of its own.

        Raises:
            InvalidRequest: The URL may not be called, or there is no event or text too long.
            IdempotencyKeyReused: *key* stands for another request.
            QuotaExceeded: The tenant has as many as may be.
        """
        _check(events, description)
        await self.admit(url)
        public_id, secret = (
            f"{ENDPOINT_PREFIX}{secrets.token_hex(12)}",
            secrets.token_hex(SECRET_BYTES),
        )

        def write(uow: UnitOfWork) -> Created:
            if key is not None and (earlier := _earlier(uow, caller, key, public_id)):
                return Created(endpoint=earlier, is_replay=True)
            if webhooks.count(uow.conn, caller.tenant_id) > ENDPOINTS_MAX:
                raise QuotaExceeded(
                    f"you have {ENDPOINTS_MAX} webhook endpoints, the most there may be; delete one"
                )
            made = webhooks.create(
                uow,
                tenant_id=caller.tenant_id,
                public_id=public_id,
                url=url,
                description=description,
                events=events,
                secret=secret,
            )
            return Created(endpoint=made)

        return await asyncio.to_thread(self.db.write, write)

    async def change(self, public_id: str, caller: Caller, changes: Mapping[str, Any]) -> Endpoint:
        """Set some of `url`, `events`, `description` and `is_enabled`.

        Raises:
            WebhookNotFound, UnsupportedOperation: There is none; it is `default`.
            InvalidRequest: As `create`.
        """
        endpoint = await asyncio.to_thread(self._own, public_id, caller)
        _check(changes.get("events", ENDPOINT_TYPES), changes.get("description", ""))
        values = dict(changes)
        if "url" in changes:
            await self.admit(changes["url"])
        if "url" in changes or changes.get("is_enabled"):  # what it did before counts no more
            values |= {"failing_since": None, "rest_until": None}
        if "is_enabled" in changes:
            values["disabled_reason"] = None
        if "events" in changes:
            values["events"] = list(changes["events"])
        changed = await asyncio.to_thread(
            self.db.write, lambda uow: webhooks.change(uow, endpoint.id, values)
        )
        if changed is None:
            raise _no_endpoint(public_id)
        return changed

    def delete(self, public_id: str, caller: Caller) -> None:
        """Delete an endpoint, its log, and what it has not been told yet.

        Raises:
            WebhookNotFound, UnsupportedOperation: There is none; it is `default`.
        """
        endpoint = self._own(public_id, caller)
        self.db.write(lambda uow: webhooks.remove(uow, endpoint.id))
        while self.db.write(lambda uow: deliveries.forget_log(uow, endpoint.id)):
            """What is left if this process dies, deliverers forget within the hour."""

    def rotate(
        self,
        public_id: str,
        caller: Caller,
        *,
        keep_s: float = ROTATION_S,
        key: IdempotencyKey | None = None,
    ) -> Created:
        """Give an endpoint a new secret; for *keep_s* the old one signs beside it.

        Done twice, it ends the secret that receivers know: hence the *key*.

        Raises:
            WebhookNotFound: There is none, or it is somebody else's.
            IdempotencyKeyReused: *key* stands for another request.
        """
        endpoint = self.get(public_id, caller)
        secret = secrets.token_hex(SECRET_BYTES)

        def write(uow: UnitOfWork) -> Created | None:
            if not is_first(uow, caller, key, public_id):
                present = webhooks.find(uow.conn, caller.tenant_id, public_id)
                return None if present is None else Created(endpoint=present, is_replay=True)
            made = webhooks.rotate(uow, endpoint.id, secret, old_until=uow.now + keep_s)
            return None if made is None else Created(endpoint=made)

        rotated = self.db.write(write)
        if rotated is None:
            raise _no_endpoint(public_id)
        return rotated

    async def test(
        self, public_id: str, caller: Caller, event_type: EventType = EventType.TEST
    ) -> Delivery:
        """Send a sample now, once, and return what came of it.

        Raises:
            WebhookNotFound, UnsupportedOperation: There is none; it is `default`.
            WebhookDisabled: It is switched off.
        """
        endpoint = await asyncio.to_thread(self._own, public_id, caller)
        _refuse_if_off(endpoint)
        begun = await asyncio.to_thread(
            self.db.write,
            lambda uow: deliveries.add_test(uow, endpoint, event_type, lease_s=LEASE_S),
        )
        await self.courier.attempt(endpoint, begun, is_last=True)
        return await asyncio.to_thread(self.delivery, public_id, begun.public_id, caller)

    def deliveries(
        self,
        public_id: str,
        caller: Caller,
        *,
        limit: int,
        after: int | None = None,
        state: DeliveryState | None = None,
    ) -> Page:
        """Return the log of an endpoint, the newest first.

        Raises:
            WebhookNotFound: There is none, or it is somebody else's.
        """
        endpoint = self.get(public_id, caller)
        found = self.db.read(
            lambda conn: deliveries.page(
                conn, endpoint.id, limit=limit + 1, after=after, state=state
            )
        )
        shown = found[:limit]
        return Page(deliveries=shown, after=shown[-1].id if len(found) > limit else None)

    def delivery(self, public_id: str, delivery_id: str, caller: Caller) -> Delivery:
        """Return one delivery of an endpoint.

        Raises:
            WebhookNotFound, DeliveryNotFound: There is none, or it is somebody else's.
        """
        endpoint = self.get(public_id, caller)
        if not _NAME.fullmatch(delivery_id):
            raise _no_delivery(delivery_id)
        found = self.db.read(lambda conn: deliveries.find(conn, endpoint.id, delivery_id))
        if found is None:
            raise _no_delivery(delivery_id)
        return found

    def redeliver(self, public_id: str, delivery_id: str, caller: Caller) -> Delivery:
        """Have a delivery made once more, under the same id, for a new round of attempts.

        Raises:
            WebhookNotFound, DeliveryNotFound: There is none, or it is somebody else's.
            WebhookDisabled: The endpoint is switched off.
        """
        _refuse_if_off(self.get(public_id, caller))
        delivery = self.delivery(public_id, delivery_id, caller)
        again = self.db.write(lambda uow: deliveries.redeliver(uow, delivery.id))
        if again is None:
            raise _no_delivery(delivery_id)
        return again

    def replay(
        self,
        public_id: str,
        caller: Caller,
        *,
        since: float,
        types: Collection[EventType] | None = None,
    ) -> Replayed:
        """Have the endpoint told of all that happened from *since* on, known to it or not.

        What it was told before comes under the same id. *types* None = those it asks for.

        Raises:
            WebhookNotFound: There is none, or it is somebody else's.
            WebhookDisabled: It is switched off.
            InvalidRequest: *since* is before what the log remembers.
        """
        endpoint = self.get(public_id, caller)
        _refuse_if_off(endpoint)
        now = self.db.now()
        if not now - KEPT_S <= since <= now:
            raise _invalid("since", f"it must lie within the last {KEPT_S / 86_400:.0f} days")
        if types is None:
            types = tuple(EventType(name) for name in endpoint.events) or ENDPOINT_TYPES
        asked: dict[str, Any] = {"since": since, "types": types, "limit": REPLAYED_AT_ONCE}
        missed = (
            []
            if endpoint.is_default
            else self.db.read(lambda conn: deliveries.untold(conn, endpoint, **asked))
        )

        def write(uow: UnitOfWork) -> list[float]:
            again = deliveries.redeliver_since(uow, endpoint.id, **asked)
            deliveries.add(uow, endpoint, missed)
            return again

        again = self.db.write(write)
        rest_from = _rest_from(again, [at for _, _, at in missed])
        return Replayed(count=len(again) + len(missed), continue_from=rest_from)

    def _own(self, public_id: str, caller: Caller) -> Endpoint:
        """Return an endpoint that somebody made."""
        endpoint = self.get(public_id, caller)
        if endpoint.is_default:
            raise UnsupportedOperation(
                f"the endpoint {DEFAULT!r} only holds the secret that signs for the webhook_url of"
                " tasks and batches; it can be read, rotated and replayed"
            )
        return endpoint


def secret_of(endpoint: Endpoint) -> str:
    """Return the endpoint's secret as its receiver must know it."""
    return secret_text(bytes.fromhex(endpoint.secret))


def _earlier(
    uow: UnitOfWork, caller: Caller, key: IdempotencyKey, public_id: str
) -> Endpoint | None:
    """Take *key* for the endpoint *public_id*; return the one that has it already, if any."""
    owner = owner_of(uow, caller, key, public_id)
    return None if owner == public_id else webhooks.find(uow.conn, caller.tenant_id, owner)


def _check(events: Sequence[EventType], description: str) -> None:
    if not events:
        raise _invalid("events", f"name at least one of: {', '.join(ENDPOINT_TYPES)}")
    if EventType.TEST in events or len(set(events)) < len(events):
        raise _invalid("events", f"name each once, out of: {', '.join(ENDPOINT_TYPES)}")
    if bad := forbidden_characters(description):
        raise _invalid("description", f"it holds {', '.join(bad[:5])}; remove control characters")
    if len(description) > DESCRIPTION_MAX_CHARS:
        raise _invalid(
            "description",
            f"it has {len(description)} characters, the limit is {DESCRIPTION_MAX_CHARS};"
            " shorten it",
        )


def _rest_from(*parts: Sequence[float]) -> float | None:
    """Return the earliest end of those *parts* that are full: what comes later was left out."""
    return min((part[-1] for part in parts if len(part) == REPLAYED_AT_ONCE), default=None)


def _refuse_if_off(endpoint: Endpoint) -> None:
    if not endpoint.is_enabled:
        reason = endpoint.disabled_reason or "somebody of yours did so"
        raise WebhookDisabled(
            f"the endpoint {endpoint.public_id} is switched off ({reason}); switch it on first"
        )


def _invalid(name: str, message: str) -> InvalidRequest:
    return InvalidRequest([FieldProblem(pointer=f"#/{name}", code="not_offered", message=message)])


def _no_endpoint(public_id: str) -> WebhookNotFound:
    return WebhookNotFound(
        f"there is no webhook endpoint {public_id[:60]!r} of yours; the list shows those there are"
    )


def _no_delivery(delivery_id: str) -> DeliveryNotFound:
    return DeliveryNotFound(
        f"there is no delivery {delivery_id[:60]!r} to this endpoint; its list shows all there are"
    )
