"""A finished clip: what is known of it, and its files."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from vidmill.client._models import Result, Task
from vidmill.client._sinks import FileSink, MemorySink, Sink

Fetch = Callable[[str, Sink], None]
"""Downloads a variant (`video`, `poster`, `preview`) into a sink, checked against its SHA-256."""

AsyncFetch = Callable[[str, Sink], Awaitable[None]]


class _Clip:
    """What both colours share: the facts."""

    def __init__(self, task: Task, result: Result) -> None:
        self.task = task
        self.result = result

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task_id} {self.result.width}x{self.result.height}>"

    @property
    def task_id(self) -> str:
        return self.task.task_id

    @property
    def seed(self) -> int | None:
        """The seed that was used, also when the request named none."""
        return self.result.seed

    @property
    def sha256(self) -> str:
        return self.result.sha256


class Video(_Clip):
    """A finished clip. Its files are downloaded when asked for."""

    def __init__(self, task: Task, result: Result, fetch: Fetch) -> None:
        super().__init__(task, result)
        self._fetch = fetch

    def save(self, path: str | Path, *, variant: str = "video") -> Path:
        """Write a file to *path*, which appears only when whole and verified; folders are made.

        Args:
            path: The file to write; one of that name is replaced.
            variant: `video` (MP4), `poster` (JPEG) or `preview` (animated WebP).

        Raises:
            DownloadDamaged: The bytes do not match the server's SHA-256.
        """
        with FileSink(Path(path)) as sink:
            self._fetch(variant, sink)
        return Path(path)

    def save_poster(self, path: str | Path) -> Path:
        return self.save(path, variant="poster")

    def save_preview(self, path: str | Path) -> Path:
        return self.save(path, variant="preview")

    def bytes(self, *, variant: str = "video") -> bytes:
        """Return a whole file in memory."""
        sink = MemorySink()
        self._fetch(variant, sink)
        return sink.data


class AsyncVideo(_Clip):
    """A finished clip. Its files are downloaded when asked for."""

    def __init__(self, task: Task, result: Result, fetch: AsyncFetch) -> None:
        super().__init__(task, result)
        self._fetch = fetch

    async def save(self, path: str | Path, *, variant: str = "video") -> Path:
        """Write a file to *path*, which appears only when whole and verified; folders are made.

        Args:
            path: The file to write; one of that name is replaced.
            variant: `video` (MP4), `poster` (JPEG) or `preview` (animated WebP).

        Raises:
            DownloadDamaged: The bytes do not match the server's SHA-256.
        """
        with FileSink(Path(path)) as sink:
            await self._fetch(variant, sink)
        return Path(path)

    async def save_poster(self, path: str | Path) -> Path:
        return await self.save(path, variant="poster")

    async def save_preview(self, path: str | Path) -> Path:
        return await self.save(path, variant="preview")

    async def bytes(self, *, variant: str = "video") -> bytes:
        """Return a whole file in memory."""
        sink = MemorySink()
        await self._fetch(variant, sink)
        return sink.data
