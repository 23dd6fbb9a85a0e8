"""Where finished files are kept: one adapter per kind of store, chosen by the scheme of a URL."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from vidmill.domain.ports import BlobStore
from vidmill.plugins import load_plugin

STORES: Mapping[str, str] = {
    "file": "vidmill.storage.local:LocalBlobs",
    "memory": "vidmill.storage.objects:open_memory",
    "s3": "vidmill.storage.objects:open_s3",
    "oss": "vidmill.storage.objects:open_oss",
    "gs": "vidmill.storage.objects:open_by_url",
    "az": "vidmill.storage.objects:open_by_url",
}
"""URL scheme -> `url -> BlobStore`. Nothing is contacted when a store is opened."""


def open_blobs(url: str) -> BlobStore:
    """Open the store at *url*: `file:///srv/files`, `s3://bucket/prefix?region=eu-west-1`, ...

    Raises:
        LookupError: No store answers to the scheme.
        ValueError: The URL lacks something its store needs.
    """
    store: BlobStore = load_plugin(STORES, urlsplit(url).scheme)(url)
    return store
