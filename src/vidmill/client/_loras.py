"""Brand styles: pairs of LoRA files that tasks name. Both colours."""

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import Field

from vidmill.client._actions import Flow, Request
from vidmill.client._async_driver import AsyncDriver
from vidmill.client._calls import Calls, deleting, getting
from vidmill.client._driver import Driver
from vidmill.client._models import Wire

LORAS = "/v1/t2v/loras"


class LoraFile(Wire):
    """One file of a pair."""

    sha256: str = ""
    size_bytes: int = 0


class Lora(Wire):
    """A brand style.

    Attributes:
        version: Names these very files.
        architecture: Blocks, width and inner width of the experts it fits.
        shared: Every tenant's; only the operator changes it.
    """

    name: str
    version: str = ""
    licence: str = ""
    trigger_words: list[str] = Field(default_factory=list)
    strength: float = 1.0
    rank: int = 0
    layers: int = 0
    architecture: str = ""
    high: LoraFile = LoraFile()
    low: LoraFile = LoraFile()
    shared: bool = False
    enabled: bool = True
    created_at: datetime | None = None


class LoraList(Wire):
    data: list[Lora]


@dataclass(frozen=True)
class LorasFlows:
    """The operations, each made with *calls*."""

    calls: Calls

    def add(
        self,
        name: str,
        high: str | Path,
        low: str | Path,
        *,
        licence: str,
        trigger_words: Sequence[str],
        strength: float,
    ) -> Flow[Lora]:
        """Send the pair once: after a loss, look whether it is there."""
        form: dict[str, Any] = {"name": name, "licence": licence, "strength": str(strength)}
        form["trigger_words"] = list(trigger_words)
        with Path(high).open("rb") as high_file, Path(low).open("rb") as low_file:
            request = Request(
                method="POST",
                path=LORAS,
                form=form,
                files={"high": high_file, "low": low_file},
                is_repeatable=False,
            )
            return (yield from self.calls.ask(Lora, request))

    def all(self) -> Flow[builtins.list[Lora]]:
        return (yield from self.calls.ask(LoraList, getting(LORAS))).data

    def get(self, name: str) -> Flow[Lora]:
        return self.calls.ask(Lora, getting(_path(name)))

    def switch(self, name: str, *, is_enabled: bool) -> Flow[Lora]:
        body = {"enabled": is_enabled}
        return self.calls.ask(Lora, Request(method="PATCH", path=_path(name), body=body))

    def delete(self, name: str) -> Flow[None]:
        yield from self.calls.send(deleting(_path(name)))


def _path(name: str) -> str:
    return f"{LORAS}/{quote(name, safe='')}"


class Loras:
    """Brand styles; changing them needs the scope `admin`."""

    def __init__(self, driver: Driver, calls: Calls) -> None:
        self._driver = driver
        self._flows = LorasFlows(calls)

    def add(
        self,
        name: str,
        high: str | Path,
        low: str | Path,
        *,
        licence: str,
        trigger_words: Sequence[str] = (),
        strength: float = 1.0,
    ) -> Lora:
        """Upload a pair of safetensors files; they are checked before they are kept.

        Args:
            name: What tasks will name.
            high: The file for the expert of high noise.
            low: The file for the expert of low noise.
            licence: By what right the style is used.
            trigger_words: Words it was trained with; added to prompts that lack them.
            strength: Where a request names none.

        Raises:
            InvalidRequest: The files are no pair for the served model; every reason is told.
            Conflict: There is one of that name.
        """
        flow = self._flows.add(
            name, high, low, licence=licence, trigger_words=trigger_words, strength=strength
        )
        return self._driver.run(flow)

    def list(self) -> builtins.list[Lora]:
        """Return what you may use, your own first."""
        return self._driver.run(self._flows.all())

    def get(self, name: str) -> Lora:
        """Return one, by what tasks call it."""
        return self._driver.run(self._flows.get(name))

    def enable(self, name: str) -> Lora:
        """Put one of yours on offer again."""
        return self._driver.run(self._flows.switch(name, is_enabled=True))

    def disable(self, name: str) -> Lora:
        """Take one of yours off; what is queued with it is drawn all the same."""
        return self._driver.run(self._flows.switch(name, is_enabled=False))

    def delete(self, name: str) -> None:
        """Delete one of yours.

        Raises:
            Conflict: Tasks under way are drawn with it.
        """
        self._driver.run(self._flows.delete(name))


class AsyncLoras:
    """Brand styles; changing them needs the scope `admin`, on asyncio."""

    def __init__(self, driver: AsyncDriver, calls: Calls) -> None:
        self._driver = driver
        self._flows = LorasFlows(calls)

    async def add(
        self,
        name: str,
        high: str | Path,
        low: str | Path,
        *,
        licence: str,
        trigger_words: Sequence[str] = (),
        strength: float = 1.0,
    ) -> Lora:
        """Upload a pair of safetensors files; they are checked before they are kept.

        Args:
            name: What tasks will name.
            high: The file for the expert of high noise.
            low: The file for the expert of low noise.
            licence: By what right the style is used.
            trigger_words: Words it was trained with; added to prompts that lack them.
            strength: Where a request names none.

        Raises:
            InvalidRequest: The files are no pair for the served model; every reason is told.
            Conflict: There is one of that name.
        """
        flow = self._flows.add(
            name, high, low, licence=licence, trigger_words=trigger_words, strength=strength
        )
        return await self._driver.run(flow)

    async def list(self) -> builtins.list[Lora]:
        """Return what you may use, your own first."""
        return await self._driver.run(self._flows.all())

    async def get(self, name: str) -> Lora:
        """Return one, by what tasks call it."""
        return await self._driver.run(self._flows.get(name))

    async def enable(self, name: str) -> Lora:
        """Put one of yours on offer again."""
        return await self._driver.run(self._flows.switch(name, is_enabled=True))

    async def disable(self, name: str) -> Lora:
        """Take one of yours off; what is queued with it is drawn all the same."""
        return await self._driver.run(self._flows.switch(name, is_enabled=False))

    async def delete(self, name: str) -> None:
        """Delete one of yours.

        Raises:
            Conflict: Tasks under way are drawn with it.
        """
        await self._driver.run(self._flows.delete(name))
