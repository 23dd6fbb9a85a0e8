"""Object stores through obstore: S3, Alibaba OSS, Google Cloud Storage, Azure, and memory.

Credentials come from the environment, under the names each cloud's own tools use (`AWS_*`,
`GOOGLE_*`, `AZURE_*`); OSS speaks S3 and takes the `AWS_*` ones. Addresses come from the URL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import obstore
from obstore import store as stores
from obstore.exceptions import BaseError

from vidmill.domain.errors import DiskFull, NotFound, StorageFailed, VidmillError
from vidmill.domain.ports import BlobInfo, BlobStore
from vidmill.storage.keys import check_key

CHUNK_BYTES = 256 * 1024
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 4
"""A put holds at most these parts, 32 MiB, however large the file is."""

RETRY = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
"""obstore's default of 3 minutes outlives a lease; the job's own retry takes over sooner."""

CLIENT = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60)}

_NO_ROOM = ("no space left", "storagefull", "quotaexceeded", "insufficientstorage")
"""Lower-case pieces of what stores answer when they are full: text is all obstore passes on."""


class ObjectBlobs:
    """Any obstore store. `can_sign` says whether it honours URLs it signed itself."""

    def __init__(self, store: Any, *, can_sign: bool) -> None:
        self._store = store
        self._can_sign = can_sign

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        with _wrapped(f"storing {key}", missing=StorageFailed):
            obstore.put(
                self._store,
                check_key(key),
                path,
                attributes={"Content-Type": content_type},
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )

    def head(self, key: str) -> BlobInfo | None:
        check_key(key)
        try:
            with _wrapped(f"asking for {key}"):
                meta = obstore.head(self._store, key)
        except NotFound:
            return None
        return BlobInfo(size_bytes=meta["size"], etag=(meta["e_tag"] or "").strip('"'))

    def read(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        if end is not None and end <= start:
            return
        wanted: Any = {"offset": start} if end is None else (start, end)
        with _wrapped(f"reading {key}"):
            got = obstore.get(self._store, check_key(key), options={"range": wanted})
            for chunk in got.stream(min_chunk_size=CHUNK_BYTES):
                yield from _slices(memoryview(chunk))

    def delete_prefix(self, prefix: str) -> int:
        with _wrapped(f"deleting {prefix}"):
            batches = obstore.list(self._store, check_key(prefix))
            keys = [meta["path"] for batch in batches for meta in batch]
            obstore.delete(self._store, keys)
        return len(keys)

    def signed_url(self, key: str, *, expires_in_s: int) -> str | None:
        check_key(key)
        if not self._can_sign:
            return None
        with _wrapped(f"signing {key}"):
            life = timedelta(seconds=expires_in_s)
            url: str = obstore.sign(self._store, "GET", key, expires_in=life)
        return url


def open_memory(url: str) -> BlobStore:  # noqa: ARG001  # the table's signature
    """Open a new, empty store of this process."""
    return ObjectBlobs(stores.MemoryStore(), can_sign=False)


def open_s3(url: str) -> BlobStore:
    """Open `s3://BUCKET/PREFIX?region=R&endpoint=URL`.

    `endpoint` names another server that speaks S3, by path style; `http` is then allowed.
    """
    parts, options = _split(url, {"region", "endpoint"})
    client = {**CLIENT, "allow_http": options.get("endpoint", "").startswith("http:")}
    return _signing(parts, stores.S3Store, client, options)


def open_oss(url: str) -> BlobStore:
    """Open `oss://BUCKET/PREFIX?region=cn-hangzhou`, or `&internal=true` inside Alibaba's network.

    OSS takes virtual-hosted addresses only, and object_store uses the endpoint word for word, so
    the bucket must be part of it: with the bare region every PUT fails (getnora-io/nora PR 795).
    """
    parts, options = _split(url, {"region", "internal"})
    if not (region := options.get("region", "").removeprefix("oss-")):
        raise ValueError(f"{_shown(parts)} names no region; add ?region=cn-hangzhou")
    suffix = "-internal" if options.get("internal") == "true" else ""
    config = {
        "endpoint": f"https://{parts.netloc}.oss-{region}{suffix}.aliyuncs.com",
        "region": f"oss-{region}",
        "virtual_hosted_style_request": True,
    }
    return _signing(parts, stores.S3Store, CLIENT, config)


def open_by_url(url: str) -> BlobStore:
    """Open `gs://BUCKET/PREFIX` or `az://ACCOUNT/CONTAINER/PREFIX` as obstore reads them."""
    try:
        store = stores.from_url(url, client_options=CLIENT, retry_config=RETRY)
    except BaseError as error:
        raise ValueError(f"{_shown(urlsplit(url))}: {str(error).split(chr(10), 1)[0]}") from error
    return ObjectBlobs(store, can_sign=True)


def _signing(parts: SplitResult, kind: Any, client: Any, config: Any) -> BlobStore:
    store = kind(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        client_options=client,
        retry_config=RETRY,
        **config,
    )
    return ObjectBlobs(store, can_sign=True)


def _split(url: str, known: set[str]) -> tuple[SplitResult, dict[str, str]]:
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if not parts.netloc:
        raise ValueError(f"{_shown(parts)} names no bucket")
    if unknown := sorted(set(options) - known):
        raise ValueError(f"{_shown(parts)} has unknown options {unknown}; known: {sorted(known)}")
    return parts, options


def _shown(parts: SplitResult) -> str:
    """Return the URL without what may be secret."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _slices(view: memoryview) -> Iterator[bytes]:
    for at in range(0, len(view), CHUNK_BYTES):
        yield bytes(view[at : at + CHUNK_BYTES])


@contextmanager
def _wrapped(doing: str, *, missing: type[VidmillError] = NotFound) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise missing(f"{doing}: there is no such file") from error
    except (BaseError, OSError) as error:
        text = str(error).split("\n", 1)[0]
        if any(piece in str(error).lower() for piece in _NO_ROOM):
            raise DiskFull(f"no room left while {doing}: {text}") from error
        raise StorageFailed(f"{doing} failed: {text}") from error
