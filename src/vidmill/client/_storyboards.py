"""Storyboards on the server: make, follow, replace shots, fetch. Both colours."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import Unpack

from vidmill.client._async_driver import AsyncDriver
from vidmill.client._calls import Calls
from vidmill.client._driver import Driver
from vidmill.client._models import ClipOptions
from vidmill.client._sinks import FileSink
from vidmill.client._storyboard_flows import StoryboardsFlows
from vidmill.client._storyboard_models import (
    Shot,
    Storyboard,
    StoryboardEstimate,
    StoryboardOptions,
)


class Storyboards:
    """Storyboards: shots rendered as tasks and joined into one long clip."""

    def __init__(self, driver: Driver, calls: Calls) -> None:
        self._driver = driver
        self._flows = StoryboardsFlows(calls)

    def create(self, shots: Sequence[Shot], **options: Unpack[StoryboardOptions]) -> Storyboard:
        """Queue every shot, all at once or none, and return; `wait` for the whole.

        Args:
            shots: Prompts, or mappings of the API's fields and `crossfade` into the next shot.

        Raises:
            InvalidRequest: What is wrong is said of all shots at once; nothing was queued.
        """
        return self._driver.run(self._flows.create(shots, options))

    def estimate(
        self, shots: Sequence[Shot], **options: Unpack[StoryboardOptions]
    ) -> StoryboardEstimate:
        """Return what a storyboard would cost and how long it would be; nothing is queued."""
        return self._driver.run(self._flows.estimate(shots, options))

    def wait(
        self,
        storyboard_id: str,
        *,
        on_progress: Callable[[Storyboard], None] | None = None,
        timeout_s: float | None = None,
    ) -> Storyboard:
        """Wait until the whole is joined, across restarts of the server.

        Raises:
            StoryboardFailed: A shot has no clip, or they cannot be joined.
            StoryboardCancelled: Somebody cancelled.
            StoryboardUnfinished: *timeout_s* passed; it goes on.
        """
        return self._driver.run(self._flows.wait(storyboard_id, timeout_s), on_progress)

    def get(self, storyboard_id: str) -> Storyboard:
        """Return how a storyboard stands."""
        return self._driver.run(self._flows.get(storyboard_id))

    def list(self) -> Generator[Storyboard, None, None]:
        """Iterate over your storyboards, the newest first."""
        return self._driver.news(self._flows.all())

    def replace_shot(
        self,
        storyboard_id: str,
        number: int,
        *,
        prompt: str | None = None,
        crossfade: float | None = None,
        **changes: Unpack[ClipOptions],
    ) -> Storyboard:
        """Make shot *number*, from 1, anew; the clips of the others are used again.

        Without a seed among the changes it takes a new one. `wait` for the new whole.

        Raises:
            Conflict: It is being cancelled.
        """
        return self._driver.run(
            self._flows.replace_shot(
                storyboard_id, number, changes, prompt=prompt, crossfade=crossfade
            )
        )

    def save(
        self, storyboard: Storyboard | str, path: str | Path, *, variant: str = "video"
    ) -> Path:
        """Write a file of the whole to *path*, which appears only when whole and verified.

        Args:
            storyboard: As `wait` returned it, or its id.
            path: The file to write; one of that name is replaced.
            variant: `video` (MP4), `poster` (JPEG) or `preview` (animated WebP).

        Raises:
            NotFound: It is not joined yet.
        """
        board = self.get(storyboard) if isinstance(storyboard, str) else storyboard
        with FileSink(Path(path)) as sink:
            self._driver.run(self._flows.fetch(board, variant, into=sink))
        return Path(path)

    def cancel(self, storyboard_id: str) -> Storyboard:
        """Stop every shot under way; clips that are there stay, as tasks.

        Raises:
            Conflict: It is over.
        """
        return self._driver.run(self._flows.cancel(storyboard_id))

    def delete(self, storyboard_id: str) -> None:
        """Forget a storyboard and its files; its tasks stay.

        Raises:
            Conflict: It is under way; cancel it first.
        """
        self._driver.run(self._flows.delete(storyboard_id))


class AsyncStoryboards:
    """Storyboards: shots rendered as tasks and joined into one long clip, on asyncio."""

    def __init__(self, driver: AsyncDriver, calls: Calls) -> None:
        self._driver = driver
        self._flows = StoryboardsFlows(calls)

    async def create(
        self, shots: Sequence[Shot], **options: Unpack[StoryboardOptions]
    ) -> Storyboard:
        """Queue every shot, all at once or none, and return; `wait` for the whole.

        Args:
            shots: Prompts, or mappings of the API's fields and `crossfade` into the next shot.

        Raises:
            InvalidRequest: What is wrong is said of all shots at once; nothing was queued.
        """
        return await self._driver.run(self._flows.create(shots, options))

    async def estimate(
        self, shots: Sequence[Shot], **options: Unpack[StoryboardOptions]
    ) -> StoryboardEstimate:
        """Return what a storyboard would cost and how long it would be; nothing is queued."""
        return await self._driver.run(self._flows.estimate(shots, options))

    async def wait(
        self,
        storyboard_id: str,
        *,
        on_progress: Callable[[Storyboard], Awaitable[None] | None] | None = None,
        timeout_s: float | None = None,
    ) -> Storyboard:
        """Wait until the whole is joined, across restarts of the server.

        Raises:
            StoryboardFailed: A shot has no clip, or they cannot be joined.
            StoryboardCancelled: Somebody cancelled.
            StoryboardUnfinished: *timeout_s* passed; it goes on.
        """
        return await self._driver.run(self._flows.wait(storyboard_id, timeout_s), on_progress)

    async def get(self, storyboard_id: str) -> Storyboard:
        """Return how a storyboard stands."""
        return await self._driver.run(self._flows.get(storyboard_id))

    def list(self) -> AsyncGenerator[Storyboard, None]:
        """Iterate over your storyboards, the newest first."""
        return self._driver.news(self._flows.all())

    async def replace_shot(
        self,
        storyboard_id: str,
        number: int,
        *,
        prompt: str | None = None,
        crossfade: float | None = None,
        **changes: Unpack[ClipOptions],
    ) -> Storyboard:
        """Make shot *number*, from 1, anew; the clips of the others are used again.

        Without a seed among the changes it takes a new one. `wait` for the new whole.

        Raises:
            Conflict: It is being cancelled.
        """
        return await self._driver.run(
            self._flows.replace_shot(
                storyboard_id, number, changes, prompt=prompt, crossfade=crossfade
            )
        )

    async def save(
        self, storyboard: Storyboard | str, path: str | Path, *, variant: str = "video"
    ) -> Path:
        """Write a file of the whole to *path*, which appears only when whole and verified.

        Args:
            storyboard: As `wait` returned it, or its id.
            path: The file to write; one of that name is replaced.
            variant: `video` (MP4), `poster` (JPEG) or `preview` (animated WebP).

        Raises:
            NotFound: It is not joined yet.
        """
        board = await self.get(storyboard) if isinstance(storyboard, str) else storyboard
        with FileSink(Path(path)) as sink:
            await self._driver.run(self._flows.fetch(board, variant, into=sink))
        return Path(path)

    async def cancel(self, storyboard_id: str) -> Storyboard:
        """Stop every shot under way; clips that are there stay, as tasks.

        Raises:
            Conflict: It is over.
        """
        return await self._driver.run(self._flows.cancel(storyboard_id))

    async def delete(self, storyboard_id: str) -> None:
        """Forget a storyboard and its files; its tasks stay.

        Raises:
            Conflict: It is under way; cancel it first.
        """
        await self._driver.run(self._flows.delete(storyboard_id))
