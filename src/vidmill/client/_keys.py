"""API keys of your tenant. Both colours."""

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from vidmill.client._account_models import Key, KeyList, NewKey
from vidmill.client._actions import Flow, Request
from vidmill.client._async_driver import AsyncDriver
from vidmill.client._calls import Calls, deleting, getting
from vidmill.client._driver import Driver

KEYS = "/v1/t2v/keys"

Scope = Literal["read", "submit", "admin"]


@dataclass(frozen=True)
class KeysFlows:
    """The operations, each made with *calls*."""

    calls: Calls

    def create(
        self, name: str, scopes: Sequence[Scope], expires_in_days: float | None, user: str | None
    ) -> Flow[NewKey]:
        """Make a key, once: whoever lost the answer has lost the key, and revokes it."""
        body: dict[str, Any] = {"name": name, "scopes": [*scopes]}
        body |= {} if expires_in_days is None else {"expires_in_days": expires_in_days}
        body |= {} if user is None else {"user": user}
        request = Request(method="POST", path=KEYS, body=body, is_repeatable=False)
        return self.calls.ask(NewKey, request)

    def all(self) -> Flow[builtins.list[Key]]:
        return (yield from self.calls.ask(KeyList, getting(KEYS))).data

    def revoke(self, key_id: str) -> Flow[None]:
        yield from self.calls.send(deleting(f"{KEYS}/{quote(key_id, safe='')}"))


class Keys:
    """API keys; the key in use needs the scope `admin`."""

    def __init__(self, driver: Driver, calls: Calls) -> None:
        self._driver = driver
        self._flows = KeysFlows(calls)

    def create(
        self,
        name: str,
        *,
        scopes: Sequence[Scope],
        expires_in_days: float | None = None,
        user: str | None = None,
    ) -> NewKey:
        """Make a key; the answer is the only place that tells it.

        Args:
            name: What it is for.
            scopes: What it may do; never more than the key that asks.
            expires_in_days: None = it does not expire.
            user: Whose it is, of your tenant's users, made if new; None = yours.
        """
        return self._driver.run(self._flows.create(name, scopes, expires_in_days, user))

    def list(self) -> builtins.list[Key]:
        """Return every key, the oldest first."""
        return self._driver.run(self._flows.all())

    def revoke(self, key_id: str) -> None:
        """Take a key out of use; servers may know it for five seconds more."""
        self._driver.run(self._flows.revoke(key_id))


class AsyncKeys:
    """API keys; the key in use needs the scope `admin`, on asyncio."""

    def __init__(self, driver: AsyncDriver, calls: Calls) -> None:
        self._driver = driver
        self._flows = KeysFlows(calls)

    async def create(
        self,
        name: str,
        *,
        scopes: Sequence[Scope],
        expires_in_days: float | None = None,
        user: str | None = None,
    ) -> NewKey:
        """Make a key; the answer is the only place that tells it.

        Args:
            name: What it is for.
            scopes: What it may do; never more than the key that asks.
            expires_in_days: None = it does not expire.
            user: Whose it is, of your tenant's users, made if new; None = yours.
        """
        return await self._driver.run(self._flows.create(name, scopes, expires_in_days, user))

    async def list(self) -> builtins.list[Key]:
        """Return every key, the oldest first."""
        return await self._driver.run(self._flows.all())

    async def revoke(self, key_id: str) -> None:
        """Take a key out of use; servers may know it for five seconds more."""
        await self._driver.run(self._flows.revoke(key_id))
