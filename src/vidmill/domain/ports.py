"""The seams where Vidmill itself has several implementations. Each has one contract suite."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vidmill.domain.clip import ClipSpec
from vidmill.domain.job import Phase

Frames = NDArray[np.uint8]
"""A clip in memory: `uint8 (T, H, W, 3) RGB`."""

Picture = NDArray[np.uint8]
"""One frame: `uint8 (H, W, 3) RGB`."""

Show = Callable[[int, Picture], None]
"""Takes a picture of a clip that is being drawn, and after how many steps it was; quick."""

Allocate = Callable[[tuple[int, int, int, int]], Frames]
"""Gives the engine memory for `(T, H, W, 3)`; in a worker it is shared memory."""


@dataclass(frozen=True, kw_only=True)
class LoraFiles:
    """The two files of a LoRA on this machine, each known to be the one that was registered."""

    high: Path
    low: Path


class Watch(Protocol):
    """How an engine tells where it stands and learns that it should stop."""

    def report(self, phase: Phase, done: int, total: int) -> None:
        """Say that *done* of *total* units of *phase* are finished. Cheap; call at every step."""
        ...

    def check(self) -> None:
        """Return at once, or raise `JobCancelled`. Call it inside steps, in well under a second."""
        ...


class Engine(Protocol):
    """Makes frames from specs. One instance per render child, one call at a time."""

    def load(self) -> None:
        """Bring the weights to the device. Idempotent.

        Raises:
            ModelInvalid: A file is missing, damaged or of another shape.
        """
        ...

    def warm(self, on_shape: Callable[[int, int], None]) -> None:
        """Run every allowed shape once, briefly; *on_shape(done, total)* after each."""
        ...

    def identity(self) -> Mapping[str, str]:
        """Return `name`, `revision` and `sha256` of the loaded model."""
        ...

    def generate(
        self,
        spec: ClipSpec,
        *,
        allocate: Allocate,
        watch: Watch,
        show: Show | None = None,
        lora: LoraFiles | None = None,
    ) -> Frames:
        """Return `spec.num_frames` frames at `spec.native`, in memory from *allocate*.

        *lora* are the files of `spec.lora`; only an engine whose profile takes LoRAs gets any.

        The same spec gives the same bytes on the same machine, shown or not: *show* gets what the
        first frame promises to be, at `preview_steps`, as far as that costs next to nothing.

        Raises:
            JobCancelled: The watch said so.
            EngineFailed: The device failed; retryable.
            BadOutput: NaN or a wrong shape came out.
            LoraInvalid: The files of the LoRA do not fit the model.
        """
        ...

    def is_busy(self) -> bool:
        """Whether the device still works on a clip that was given up; ask again in a second.

        Asked between two calls of `generate`, and quick.
        """
        ...

    def close(self) -> None:
        """Free the device's memory. The instance is not used again."""
        ...


@dataclass(frozen=True, kw_only=True)
class BlobInfo:
    size_bytes: int
    etag: str


class BlobStore(Protocol):
    """Keeps files under keys like `<task>/<attempt>/clip.mp4`. Keys are written once."""

    def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        """Copy the file at *path* to *key*.

        Raises:
            DiskFull: There is no room.
            StorageFailed: Anything else that a later try may cure.
        """
        ...

    def head(self, key: str) -> BlobInfo | None: ...

    def read(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes *start* (inclusive) to *end* (exclusive) in bounded chunks."""
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Delete every key below *prefix*; return how many there were.

        Raises:
            StorageFailed: Some are still there; try again.
        """
        ...

    def signed_url(self, key: str, *, expires_in_s: int) -> str | None:
        """Return a URL the store itself honours, or None when the API must serve the bytes."""
        ...


Item = TypeVar("Item")


class Inbox(Protocol[Item]):
    """What came for one worker. Made for `select`: `fileno` is readable while something waits."""

    def fileno(self) -> int: ...

    def take(self) -> list[Item]:
        """Return, without waiting, everything that came since the last call."""
        ...

    def close(self) -> None: ...


class TicketInbox(Inbox[str], Protocol):
    """The tickets (names of pools) for one worker."""

    def pause(self) -> None:
        """Let others have the tickets: this worker has no room. What lies here is forgotten."""
        ...

    def resume(self) -> None:
        """Take tickets again, within a fraction of a second. Claim once yourself before that."""
        ...


class TicketSource(Protocol):
    """Wakes idle workers. A ticket says only "pool P has work"; losing one costs a poll."""

    def publish(self, pool: str) -> None:
        """Send a ticket. Never blocks, never raises; a burst sends fewer than were published."""
        ...

    def listen(self, pools: Sequence[str], worker: str) -> TicketInbox:
        """Return the tickets of all *pools* for *worker*, which the caller closes."""
        ...

    def close(self) -> None:
        """Let what was published go out, for a second at most."""
        ...


@dataclass(frozen=True)
class CancelRequest:
    """Somebody wants run number *attempt* of the task *job_id* stopped."""

    job_id: str
    attempt: int


class EventBus(Protocol):
    """Carries hints about running jobs. The row is the truth; a heartbeat heals a lost event.

    An event is `attempt`, `state`, `phase` and `progress` (0..1); see `services.lifecycle`.
    """

    def publish(self, job_id: str, event: Mapping[str, Any]) -> None:
        """Send *event* to whoever watches the task *job_id*. Never blocks, never raises."""
        ...

    def latest(self, job_id: str) -> Mapping[str, Any] | None:
        """Return the newest event seen here, if the task is running."""
        ...

    def subscribe(
        self, job_id: str, on_event: Callable[[Mapping[str, Any]], None]
    ) -> Callable[[], None]:
        """Call *on_event* (from another thread) for each event; returns the way to stop it."""
        ...

    def cancel(self, job_id: str, attempt: int) -> None:
        """Tell the worker that runs it to stop. Call it after the row says so (see the class)."""
        ...

    def listen(self, worker: str) -> Inbox[CancelRequest]:
        """Return the cancel requests for *worker*, which the caller closes."""
        ...

    def close(self) -> None: ...
