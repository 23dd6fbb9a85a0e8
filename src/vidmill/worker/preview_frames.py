"""Preview frames on their way from the engine to the store, without holding up the engine."""

from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import StorageFailed
from vidmill.domain.ports import BlobStore, Picture, Show
from vidmill.domain.preview_frames import preview_key
from vidmill.media.stills import preview_size, write_preview_frame
from vidmill.telemetry import get_logger

log = get_logger(__name__)

WIDTH_PX = 320


class PreviewFrames:
    """Keeps pictures of the runs of one render child. A lost picture costs no run.

    Args:
        scratch: A folder for one small file.
    """

    def __init__(self, blobs: BlobStore, scratch: Path) -> None:
        self._blobs = blobs
        self._scratch = scratch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vidmill-preview")
        self._last: Future[None] | None = None

    def shower(self, spec: ClipSpec, prefix: str) -> Show:
        """Return what keeps the pictures of one run of *spec* under *prefix*."""
        size = preview_size(spec.size, width_px=WIDTH_PX)

        def show(step: int, picture: Picture) -> None:
            if self._last is None or self._last.done():  # a slow store costs pictures, not time
                self._last = self._thread.submit(keep, preview_key(prefix, step), picture)

        def keep(key: str, picture: Picture) -> None:
            file = self._scratch / "preview-frame.jpg"
            try:
                self._scratch.mkdir(parents=True, exist_ok=True)
                write_preview_frame(file, picture, size)
                self._blobs.put_file(key, file, content_type="image/jpeg")
                file.unlink()
            except (StorageFailed, OSError) as error:
                log.warning("preview_frame_lost", key=key, error=str(error))

        return show

    def settle(self) -> None:
        """Wait for what is being stored: once its run is over, nobody would delete it."""
        if self._last is not None:
            wait([self._last])
