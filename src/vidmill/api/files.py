"""Stored files over HTTP: ranges, validators and names (RFC 9110 §13-14)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from vidmill.domain.errors import NotFound, RangeNotSatisfiable
from vidmill.domain.ports import BlobInfo, BlobStore

CONTENT_TYPES: Mapping[str, str] = {
    "mp4": "video/mp4",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "png": "image/png",
    "json": "application/json",
}

_RANGE = re.compile(r"bytes *= *(\d*) *- *(\d*) *", re.ASCII | re.IGNORECASE)
_DIGITS = 18


@dataclass(frozen=True)
class ByteRange:
    """Bytes *start* (inclusive) to *end* (exclusive)."""

    start: int
    end: int


def requested_range(header: str | None, size: int) -> ByteRange | None:
    """Return the part of *size* bytes that a `Range` header asks for; None = all of it.

    Several ranges at once, another unit and a malformed header all mean the whole file, as RFC 9110
    §14.2 allows: no browser needs more, and many small ranges are a way to hurt a server.

    Raises:
        RangeNotSatisfiable: The range begins after the end.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or not any(match.groups()):
        return None
    first, last = (int(text[:_DIGITS]) if text else None for text in match.groups())
    if first is None:
        start, end = max(0, size - (last or 0)), size
    elif last is not None and last < first:
        return None
    else:
        start, end = first, size if last is None else min(last + 1, size)
    if start >= end:
        raise RangeNotSatisfiable(size)
    return ByteRange(start, end)


def file_response(request: Request, blobs: BlobStore, key: str, *, name: str) -> Response:
    """Answer with the file at *key*, or the part of it that was asked for.

    Raises:
        NotFound: There is no such file.
        RangeNotSatisfiable: As above.
    """
    info = blobs.head(key)
    if info is None:
        raise NotFound("the file is not there any more; it was deleted")
    headers = _headers(request, key, info, name=name)
    if _is_unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    wanted = _wanted(request, info, headers["ETag"])
    part = wanted or ByteRange(0, info.size_bytes)
    headers["Content-Length"] = str(part.end - part.start)
    if wanted:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{info.size_bytes}"
    status = 206 if wanted else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    pieces = blobs.read(key, start=part.start, end=part.end)
    return StreamingResponse(pieces, status_code=status, headers=headers)


def _wanted(request: Request, info: BlobInfo, etag: str) -> ByteRange | None:
    condition = request.headers.get("if-range")
    if condition is not None and condition != etag:
        return None  # he has another version: he gets all of this one
    return requested_range(request.headers.get("range"), info.size_bytes)


def _headers(request: Request, key: str, info: BlobInfo, *, name: str) -> dict[str, str]:
    suffix = key.rpartition(".")[2]
    kind = "attachment" if "download" in request.query_params else "inline"
    return {
        "Content-Type": CONTENT_TYPES.get(suffix, "application/octet-stream"),
        "Content-Disposition": f'{kind}; filename="{name}.{suffix}"',
        "Accept-Ranges": "bytes",
        "ETag": '"' + info.etag.strip('"') + '"',
        "Cache-Control": "private, max-age=3600",
        "X-Content-Type-Options": "nosniff",
    }


def _is_unchanged(request: Request, etag: str) -> bool:
    return matches_etag(request.headers.get("if-none-match"), etag)


def matches_etag(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names *etag* (weak comparison, RFC 9110 §13.1.2)."""
    if header is None:
        return False
    named = {part.strip().removeprefix("W/") for part in header.split(",")}
    return "*" in named or etag in named
