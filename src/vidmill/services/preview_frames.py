"""Which preview frames a task has: those of its newest run, or of the run that made its clip."""

from dataclasses import dataclass

from vidmill.domain.errors import ServiceUnavailable, StorageFailed
from vidmill.domain.job import Job
from vidmill.domain.ports import BlobStore
from vidmill.domain.preview_frames import preview_key, preview_steps
from vidmill.services.tasks import TaskView


@dataclass(frozen=True, kw_only=True)
class PreviewFrame:
    """A stored picture, and after how many of the run's steps it was taken."""

    key: str
    step: int
    num_steps: int


def preview_frames(blobs: BlobStore, view: TaskView) -> list[PreviewFrame]:
    """Return the pictures there are, while the task runs, and after its end however it ended.

    The store is asked for each: a run that was cut short, or a worker set up so, made fewer.

    Raises:
        ServiceUnavailable: The store does not answer.
    """
    run = view.run
    num_steps, prefix = run.spec.steps, _prefix_of(run)
    if prefix is None:
        return []
    frames = [
        PreviewFrame(key=preview_key(prefix, step), step=step, num_steps=num_steps)
        for step in preview_steps(num_steps)
    ]
    try:
        return [frame for frame in frames if blobs.head(frame.key)]
    except StorageFailed as error:
        raise ServiceUnavailable(f"the pictures cannot be looked for now: {error}") from error


def _prefix_of(run: Job) -> str | None:
    """Return where the files of *run* lie: those of a clip from the cache, where it was made."""
    if run.result is not None:
        return run.result.assets["video"].key.rpartition("/")[0]
    return f"{run.public_id}/{run.attempt}" if run.attempt else None
