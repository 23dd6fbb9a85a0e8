"""Batches on the server: check many clips, confirm, follow, fetch. Both colours."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from vidmill.client._async_driver import AsyncDriver
from vidmill.client._batch_flows import BatchesFlows, Row
from vidmill.client._batch_models import (
    Accept,
    Batch,
    BatchResult,
    BatchRow,
    BatchVerdict,
    RowFilter,
)
from vidmill.client._calls import Calls
from vidmill.client._driver import Driver
from vidmill.client._sinks import FileSink


class BatchOptions(TypedDict, total=False):
    """What is said of a batch as a whole.

    Attributes:
        defaults: Fields of rows that lack them, named as the API names them.
        priority: Of rows that name none; `low`.
        webhook_url: Told once every task is over.
    """

    defaults: dict[str, object]
    name: str
    priority: str
    webhook_url: str


class UploadOptions(BatchOptions, total=False):
    """The same, and the encoding of a CSV; absent = found out."""

    encoding: str


class Batches:
    """Batches: many clips checked, priced and queued together."""

    def __init__(self, driver: Driver, calls: Calls) -> None:
        self._driver = driver
        self._flows = BatchesFlows(calls)

    def create(
        self, rows: Sequence[Row], *, confirm: bool = False, **options: Unpack[BatchOptions]
    ) -> BatchVerdict:
        """Check and price many clips; nothing is queued or charged before `confirm`.

        Args:
            rows: Clips, or mappings of the API's fields with `custom_id`, your name for a row.
            confirm: Queue them at once if every row is right.
        """
        return self._driver.run(self._flows.create(rows, options, confirm=confirm))

    def upload(
        self, path: str | Path, *, confirm: bool = False, **options: Unpack[UploadOptions]
    ) -> BatchVerdict:
        """Check the rows of a `.csv`, `.tsv` or `.jsonl` file, as `create` does.

        Raises:
            ValueError: The name ends otherwise.
        """
        return self._driver.run(self._flows.upload(Path(path), options, confirm=confirm))

    def confirm(self, batch_id: str, *, accept: Accept = "ready_rows_only") -> Batch:
        """Queue the rows of a checked batch, all at once; again, it changes nothing.

        Raises:
            Conflict: It cannot be confirmed any more, or a row is wrong and you wanted all.
        """
        return self._driver.run(self._flows.confirm(batch_id, accept))

    def wait(
        self,
        batch_id: str,
        *,
        on_progress: Callable[[Batch], None] | None = None,
        timeout_s: float | None = None,
    ) -> Batch:
        """Wait until every task of a batch is over; what failed is told by its counts, not raised.

        Raises:
            BatchUnfinished: *timeout_s* passed, or it was never confirmed.
        """
        return self._driver.run(self._flows.wait(batch_id, timeout_s), on_progress)

    def get(self, batch_id: str) -> Batch:
        """Return how a batch stands."""
        return self._driver.run(self._flows.get(batch_id))

    def list(self) -> Generator[Batch, None, None]:
        """Iterate over your batches, the newest first."""
        return self._driver.news(self._flows.all())

    def rows(
        self, batch_id: str, *, status: RowFilter | None = None
    ) -> Generator[BatchRow, None, None]:
        """Iterate over the rows of a batch, each with its verdict or its task."""
        return self._driver.news(self._flows.rows(batch_id, status))

    def results(self, batch_id: str) -> Generator[BatchResult, None, None]:
        """Iterate over the rows that are over, with links to their files."""
        return self._driver.news(self._flows.results(batch_id))

    def archive(self, batch_id: str, path: str | Path) -> Path:
        """Save the finished clips and a manifest as one ZIP, which appears only when whole."""
        with FileSink(Path(path)) as sink:
            self._driver.run(self._flows.archive(batch_id, sink))
        return Path(path)

    def pause(self, batch_id: str) -> Batch:
        """Begin nothing more of a batch; what runs goes on."""
        return self._driver.run(self._flows.change(batch_id, "pause"))

    def resume(self, batch_id: str) -> Batch:
        """Go on with a paused batch."""
        return self._driver.run(self._flows.change(batch_id, "resume"))

    def cancel(self, batch_id: str) -> Batch:
        """Cancel what waits of a batch and stop what runs."""
        return self._driver.run(self._flows.change(batch_id, "cancel"))

    def rerun_failed(self, batch_id: str) -> Batch:
        """Make the rows that failed once more, as new tasks with the same seeds."""
        return self._driver.run(self._flows.rerun_failed(batch_id))

    def delete(self, batch_id: str) -> None:
        """Forget a batch; its tasks stay.

        Raises:
            Conflict: It is under way; cancel it first.
        """
        self._driver.run(self._flows.delete(batch_id))


class AsyncBatches:
    """Batches: many clips checked, priced and queued together, on asyncio."""

    def __init__(self, driver: AsyncDriver, calls: Calls) -> None:
        self._driver = driver
        self._flows = BatchesFlows(calls)

    async def create(
        self, rows: Sequence[Row], *, confirm: bool = False, **options: Unpack[BatchOptions]
    ) -> BatchVerdict:
        """Check and price many clips; nothing is queued or charged before `confirm`.

        Args:
            rows: Clips, or mappings of the API's fields with `custom_id`, your name for a row.
            confirm: Queue them at once if every row is right.
        """
        return await self._driver.run(self._flows.create(rows, options, confirm=confirm))

    async def upload(
        self, path: str | Path, *, confirm: bool = False, **options: Unpack[UploadOptions]
    ) -> BatchVerdict:
        """Check the rows of a `.csv`, `.tsv` or `.jsonl` file, as `create` does.

        Raises:
            ValueError: The name ends otherwise.
        """
        return await self._driver.run(self._flows.upload(Path(path), options, confirm=confirm))

    async def confirm(self, batch_id: str, *, accept: Accept = "ready_rows_only") -> Batch:
        """Queue the rows of a checked batch, all at once; again, it changes nothing.

        Raises:
            Conflict: It cannot be confirmed any more, or a row is wrong and you wanted all.
        """
        return await self._driver.run(self._flows.confirm(batch_id, accept))

    async def wait(
        self,
        batch_id: str,
        *,
        on_progress: Callable[[Batch], Awaitable[None] | None] | None = None,
        timeout_s: float | None = None,
    ) -> Batch:
        """Wait until every task of a batch is over; what failed is told by its counts, not raised.

        Raises:
            BatchUnfinished: *timeout_s* passed, or it was never confirmed.
        """
        return await self._driver.run(self._flows.wait(batch_id, timeout_s), on_progress)

    async def get(self, batch_id: str) -> Batch:
        """Return how a batch stands."""
        return await self._driver.run(self._flows.get(batch_id))

    def list(self) -> AsyncGenerator[Batch, None]:
        """Iterate over your batches, the newest first."""
        return self._driver.news(self._flows.all())

    def rows(
        self, batch_id: str, *, status: RowFilter | None = None
    ) -> AsyncGenerator[BatchRow, None]:
        """Iterate over the rows of a batch, each with its verdict or its task."""
        return self._driver.news(self._flows.rows(batch_id, status))

    def results(self, batch_id: str) -> AsyncGenerator[BatchResult, None]:
        """Iterate over the rows that are over, with links to their files."""
        return self._driver.news(self._flows.results(batch_id))

    async def archive(self, batch_id: str, path: str | Path) -> Path:
        """Save the finished clips and a manifest as one ZIP, which appears only when whole."""
        with FileSink(Path(path)) as sink:
            await self._driver.run(self._flows.archive(batch_id, sink))
        return Path(path)

    async def pause(self, batch_id: str) -> Batch:
        """Begin nothing more of a batch; what runs goes on."""
        return await self._driver.run(self._flows.change(batch_id, "pause"))

    async def resume(self, batch_id: str) -> Batch:
        """Go on with a paused batch."""
        return await self._driver.run(self._flows.change(batch_id, "resume"))

    async def cancel(self, batch_id: str) -> Batch:
        """Cancel what waits of a batch and stop what runs."""
        return await self._driver.run(self._flows.change(batch_id, "cancel"))

    async def rerun_failed(self, batch_id: str) -> Batch:
        """Make the rows that failed once more, as new tasks with the same seeds."""
        return await self._driver.run(self._flows.rerun_failed(batch_id))

    async def delete(self, batch_id: str) -> None:
        """Forget a batch; its tasks stay.

        Raises:
            Conflict: It is under way; cancel it first.
        """
        await self._driver.run(self._flows.delete(batch_id))
