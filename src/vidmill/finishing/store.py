"""Hand finished files to a blob store."""

from vidmill.domain.clip import Asset
from vidmill.domain.ports import BlobStore
from vidmill.finishing.pipeline import FinishedClip


def store_clip(blobs: BlobStore, prefix: str, finished: FinishedClip) -> dict[str, Asset]:
    """Put every file of *finished* under *prefix*, `<task>/<attempt>`; return assets by variant.

    When one file fails, none is left behind.

    Raises:
        DiskFull, StorageFailed: See `BlobStore.put_file`.
    """
    assets = {}
    try:
        for variant, file in finished.files.items():
            key = f"{prefix}/{file.path.name}"
            blobs.put_file(key, file.path, content_type=file.content_type)
            assets[variant] = Asset(
                key=key,
                content_type=file.content_type,
                size_bytes=file.size_bytes,
                md5=file.md5,
                sha256=file.sha256,
                width_px=file.size.width_px,
                height_px=file.size.height_px,
            )
    except BaseException:
        blobs.delete_prefix(prefix)
        raise
    return assets
