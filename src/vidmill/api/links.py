"""Links to files that whoever holds them may open for a while."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

from starlette.requests import HTTPConnection

from vidmill.domain.ports import BlobStore
from vidmill.storage.links import sign

WINDOWS_PER_TTL = 10
"""A link stays the same for a tenth of its life, so that an unchanged task keeps its ETag."""

KEPT_MAX = 4096


class Stored(Protocol):
    """Whatever lies in the store under a key."""

    @property
    def key(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class FileLinks:
    """Makes links. Each lives for 90 to 100 % of *ttl_s*.

    Attributes:
        public_url: Base of links the API serves; "" = the address the request came by.
    """

    blobs: BlobStore
    secret: bytes
    ttl_s: int
    public_url: str
    clock: Callable[[], float]
    _kept: dict[tuple[str, int], str | None] = field(default_factory=dict, init=False, repr=False)

    def expires_at(self) -> int:
        """Return when links made now end, Unix seconds."""
        window_s = max(1, self.ttl_s // WINDOWS_PER_TTL)
        return int(self.clock()) // window_s * window_s + self.ttl_s

    def url(self, file: Stored, request: HTTPConnection) -> str:
        """Return the link to *file*: the store's own, or one that the API serves."""
        return self.url_at(file, self.public_url or _base_of(request))

    def url_at(self, file: Stored, base: str) -> str:
        """Return the link to *file* as `url` does, where the API is to be had at *base*."""
        expires_at = self.expires_at()
        foreign = self.foreign_url(file, expires_at)
        if foreign is not None:
            return foreign
        expires, signature = sign(file.key, expires_at=expires_at, secret=self.secret)
        return f"{base.rstrip('/')}/files/{quote(file.key)}?expires={expires}&signature={signature}"

    def foreign_url(self, file: Stored, expires_at: int) -> str | None:
        """Return the store's own link, made once per window; None if the API serves the bytes."""
        key = (file.key, expires_at)
        if key not in self._kept:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            expires_in_s = expires_at - int(self.clock())
            self._kept[key] = self.blobs.signed_url(file.key, expires_in_s=expires_in_s)
        return self._kept[key]


def _base_of(connection: HTTPConnection) -> str:
    """Return the address a request came by; files are fetched by HTTP, whatever it was."""
    return re.sub("^ws", "http", str(connection.base_url)).rstrip("/")
