"""Answers, made without a detour: a dictionary becomes bytes once."""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from vidmill.api.edge import header
from vidmill.api.files import matches_etag

RawHeader = tuple[bytes, bytes]

NO_STORE = (b"cache-control", b"no-store")
REVALIDATE = (b"cache-control", b"private, no-cache")
CONTENT_TYPE = (b"content-type", b"application/json")


class JsonBytes(Response):
    """A finished JSON body. Starlette's own way to headers costs more than making the body."""

    def __init__(self, body: bytes, status: int, headers: list[RawHeader]) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = headers
        if body:
            self.raw_headers += [CONTENT_TYPE, (b"content-length", str(len(body)).encode())]


def json_answer(
    doc: Any, *, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})
) -> Response:
    return JsonBytes(to_json(doc), status, [NO_STORE, *_encoded(headers)])


def validated_answer(
    doc: Any, request: Request, *, headers: Mapping[str, str] = MappingProxyType({})
) -> Response:
    """Answer 200 with an ETag of the content, or 304 if the caller has that content already."""
    body = to_json(doc)
    etag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    raw = [REVALIDATE, (b"etag", etag.encode()), *_encoded(headers)]
    if matches_etag(header(request, b"if-none-match"), etag):
        return JsonBytes(b"", 304, raw)
    return JsonBytes(body, 200, raw)


def _encoded(headers: Mapping[str, str]) -> list[RawHeader]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
